"""How good, fast and small a model is, and the report of it."""
