"""Number formats: how they round, how weights are stored, and training for them."""
