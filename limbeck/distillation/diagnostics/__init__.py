"""Checks of a teacher and a student before a distillation, and what the student lacks after."""
