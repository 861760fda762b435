"""Waiting for what another thread or process does; nothing heavy is imported."""

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], *, seconds: float = 120) -> None:
    """Waits for what has to come; a test does not depend on how soon."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
