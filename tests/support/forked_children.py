"""Child processes are forked, for tests that judge no figure of theirs.

A fresh interpreter for each takes seconds.
"""

import multiprocessing
from collections.abc import Callable
from types import SimpleNamespace

from limbeck.contracts import child_process


def fork_children(*, set_attribute: Callable[[object, str, object], None] = setattr) -> None:
    """Has this process fork its children; a test gives `monkeypatch.setattr`."""
    context = SimpleNamespace(get_context=lambda method: multiprocessing.get_context("fork"))
    set_attribute(child_process, "multiprocessing", context)
    # Forked processes hold each other's pipes, so that closing one's own does not end them.
    set_attribute(child_process, "STOP_SECONDS", 0.05)
