"""The number of threads as a pure function of work and free cores."""

import os

import psutil
import pytest

from limbeck.env import threads
from limbeck.env.threads import SHARED_FROM, choose_threads, count_free_cores


def choose(work, free=64):
    return choose_threads(active_parameters=work, step_tokens=1, num_free_cores=free)


def test_little_work_has_one_thread_however_many_cores_are_free():
    found = choose(SHARED_FROM - 1)
    assert (found.num_threads, found.reason) == (1, "work too small to share")


@pytest.mark.parametrize(("work", "expected"), [(1, 2), (1.5, 3), (4, 8), (1000, 64)])
def test_threads_grow_with_work_up_to_the_free_cores(work, expected):
    found = choose(int(work * SHARED_FROM))
    assert (found.num_threads, found.reason) == (expected, "work is shared")


@pytest.mark.parametrize("free", [0, 1])
def test_without_free_cores_there_is_one_thread(free):
    found = choose(10 * SHARED_FROM, free=free)
    assert (found.num_threads, found.reason) == (1, "cores are busy")


def test_a_step_of_many_tokens_has_their_work():
    alone = choose_threads(active_parameters=1_000_000, step_tokens=1, num_free_cores=2)
    together = choose_threads(active_parameters=1_000_000, step_tokens=64, num_free_cores=2)
    assert (alone.num_threads, together.num_threads) == (1, 2)
    assert together.step_work == 64_000_000


@pytest.mark.parametrize(("load", "expected"), [(0.0, 4), (0.4, 4), (1.2, 3), (9.0, 0)])
def test_processes_that_want_a_core_take_one(monkeypatch, load, expected):
    monkeypatch.setattr(threads.sys, "platform", "other")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(psutil, "getloadavg", lambda: (load, 0.0, 0.0))
    assert count_free_cores() == expected
