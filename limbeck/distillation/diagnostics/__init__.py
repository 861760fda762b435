"""Checks of a teacher and a student before a distillation runs, and what a student lacks after it."""
