"""How often and how soon an engine starts a process that has died again."""

MAX_STARTS = 3
"""Starts without one finished answer, after which the model counts as broken."""
FIRST_WAIT_SECONDS = 0.5
STOP_SECONDS = 5.0
"""That a process gets to end by itself."""


def choose_wait(num_starts: int) -> float:
    """Seconds before the next start: doubled with each of `num_starts` without an answer."""
    return FIRST_WAIT_SECONDS * 2 ** max(0, num_starts - 1)
