"""Feature distillation: which layers are matched, and how far apart they are."""
