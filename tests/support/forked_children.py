"""Child processes are forked, for tests that judge no figure of theirs.

A fresh interpreter for each takes seconds.
"""

import multiprocessing
from collections.abc import Callable
from types import SimpleNamespace

import torch

from limbeck.contracts import child_process


def fork_children(*, set_attribute: Callable[[object, str, object], None] = setattr) -> None:
    """Has this process fork its children; a test gives `monkeypatch.setattr`."""
    fork = multiprocessing.get_context("fork")

    def make_process(*, target: Callable, args: tuple, daemon: bool):
        return fork.Process(target=begin, args=(target, *args), daemon=daemon)

    context = SimpleNamespace(Pipe=fork.Pipe, Process=make_process)
    module = SimpleNamespace(get_context=lambda method: context)
    set_attribute(child_process, "multiprocessing", module)
    # Forked processes hold each other's pipes, so that closing one's own does not end them.
    set_attribute(child_process, "STOP_SECONDS", 0.05)


def begin(target: Callable, *args: object) -> None:
    """Runs a child, whose pool of threads, lost by the fork, is made anew first.

    Transformers loads weights in several threads: they would make it at once, and fail.
    """
    torch.set_num_threads(1)
    target(*args)
