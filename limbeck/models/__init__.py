"""Model architectures, how they are built and loaded, and what in them can be cut or matched."""
