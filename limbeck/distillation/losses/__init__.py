"""Distillation losses: divergences over one vocabulary or two, whole or in chunks."""
