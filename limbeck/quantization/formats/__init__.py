"""Number formats: how weights are stored, rounded and described."""
