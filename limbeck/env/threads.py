"""How many CPU threads an answering model gets: by the work of one step and by the free cores.

Products that are shared among threads end with a meeting of all of them. Below some work the
meeting costs more than the shared product saves, and on a busy machine a thread that has to wait
for a core makes all others wait (docs/decisions/0019-threads.md). Training is left out.
"""

import os
import sys
from dataclasses import dataclass
from typing import Literal

import psutil

SHARED_FROM = 24_000_000
"""Work of the smallest step that two threads share: active parameters times tokens."""
NumThreads = int | Literal["auto"]
Load = tuple[float, ...]
"""Processes wanting a CPU over 1, 5 and 15 minutes: whether the machine had neighbours."""
ThreadsReason = Literal["work too small to share", "cores are busy", "work is shared"]


@dataclass(frozen=True)
class LoadRange:
    """The load before and after a measurement."""

    before: Load
    after: Load


@dataclass(frozen=True)
class ThreadChoice:
    """A number of threads, and what it follows from."""

    num_threads: int
    reason: ThreadsReason
    step_work: int
    """Parameters active per token times tokens in the step."""
    shared_from: int
    """Work from which two threads are used."""
    num_free_cores: int


def choose_threads(
    *, active_parameters: int, step_tokens: int, num_free_cores: int
) -> ThreadChoice:
    """One thread for little work; else one for every half of `SHARED_FROM`, if cores are free."""
    work = active_parameters * step_tokens
    wanted = 1 if work < SHARED_FROM else 2 * work // SHARED_FROM
    num_threads = max(1, min(wanted, num_free_cores))
    reason: ThreadsReason = "work is shared"
    if wanted == 1:
        reason = "work too small to share"
    elif num_threads == 1:
        reason = "cores are busy"
    return ThreadChoice(num_threads, reason, work, SHARED_FROM, num_free_cores)


def count_free_cores() -> int:
    """Cores that this process may use, less the processes that want one (the load of a minute).

    This process's own recent work counts as load: after busy minutes of its own, it stays careful.
    """
    return max(0, count_cores() - round(psutil.getloadavg()[0]))


def count_cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> Load:
    """The load now, to two digits."""
    return tuple(round(value, 2) for value in psutil.getloadavg())
