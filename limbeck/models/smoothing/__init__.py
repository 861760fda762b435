"""Channels of a float model made more even, without a change of what it computes."""
