"""Distillation: teachers, what they return, losses, recorded signals, checks before a run."""
