"""Distillation: teachers, what they return, the losses, signals on disk, and the checks before a run."""
