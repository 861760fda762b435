"""Measured models are forked processes, for tests that judge no figure of theirs.

A fresh interpreter for each measured model takes seconds.
"""

import multiprocessing
from collections.abc import Callable
from types import SimpleNamespace

from limbeck.evaluation.profiling import profile


def fork_profiles(*, set_attribute: Callable[[object, str, object], None] = setattr) -> None:
    """Has this process fork the models that it measures; a test gives `monkeypatch.setattr`."""
    context = SimpleNamespace(get_context=lambda method: multiprocessing.get_context("fork"))
    set_attribute(profile, "multiprocessing", context)
    # Forked processes hold each other's pipes, so that closing one's own does not end them.
    set_attribute(profile, "STOP_SECONDS", 0.05)
