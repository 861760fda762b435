"""Measuring time and memory of an answering model in a process of its own."""
