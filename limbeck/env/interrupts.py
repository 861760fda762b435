"""Ctrl-C that cannot get lost.

Python drops an exception that is raised while a destructor or a weak reference's callback runs, so
an interrupt that lands there would be printed and forgotten. It is remembered here, and raised
again at the next sign of progress.
"""

import signal
import threading
from typing import Any

_requested = threading.Event()


def catch_interrupts() -> None:
    """Remember interrupts from now on; where they are ignored (a job in the background), do so."""
    _requested.clear()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    _requested.set()
    raise KeyboardInterrupt


def raise_lost_interrupt() -> None:
    """Go on, unless a stop was requested and got lost.

    Raises:
        KeyboardInterrupt: as Ctrl-C itself would.
    """
    if _requested.is_set():
        _requested.clear()
        raise KeyboardInterrupt
