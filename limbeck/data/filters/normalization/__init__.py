"""Text normalization, a module a language."""
