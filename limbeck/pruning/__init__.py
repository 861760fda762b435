"""Cutting coupled groups out of a model: what to cut, how training makes it zero, and the cut."""
