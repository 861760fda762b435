"""Which models answer now: a new one takes a tier over, or a share of its requests."""
