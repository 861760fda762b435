"""Filters of records: normalization, lengths, duplicates, quality, entities."""
