"""Profiles taken in real fresh processes."""

import functools
import multiprocessing
from pathlib import Path

import pytest

from limbeck.contracts.errors import CheckpointError
from limbeck.evaluation.profiling.profile import ProfileConfig, profiling
from tests.support import fake_answerer

CONFIG = ProfileConfig(questions=2, rounds=2, thread_counts=(1, 2))
QUESTIONS = ["高血压去医院看什么科？", "高血压通常会出现什么症状？", "多余的问题"]


def profile(openers, **settings):
    with profiling(openers, **settings) as measure:
        return measure()


def openers(name, opener=fake_answerer.open_lookup):
    return {
        count: functools.partial(opener, Path(name), num_threads=count)
        for count in CONFIG.thread_counts
    }


def test_profiles_of_fresh_processes():
    found = profile(
        {"light": openers("light"), "heavy": openers("heavy")},
        questions=QUESTIONS,
        config=CONFIG,
        max_new_tokens=64,
    )
    assert list(found) == ["light", "heavy"]
    for model in found.values():
        assert set(model.timings) == {1, 2}
        for num_threads in (1, 2):
            latency = model.latency(num_threads)
            assert 0 < latency.p50 <= latency.p95
            assert latency.tokens_per_second > 0
            assert latency.answers == 4
            assert len(model.load_by_threads[num_threads].before) == 3
        assert model.default_threads.num_threads == 1
        assert model.opened.base_memory_bytes > 0
        assert model.opened.size.parameters == 1000
    ballast = found["heavy"].opened.peak_memory_bytes - found["light"].opened.peak_memory_bytes
    assert ballast == pytest.approx(32 * 2**20, rel=0.1)


def test_a_spent_budget_ends_the_rounds_after_the_first():
    config = ProfileConfig(questions=2, rounds=50, thread_counts=(1,), budget_seconds=1e-6)
    found = profile(
        {"light": openers("light")}, questions=QUESTIONS, config=config, max_new_tokens=8
    )
    assert found["light"].latency(1).answers == 2


@pytest.mark.parametrize(
    ("opener", "message"),
    [
        (fake_answerer.open_broken, "weights are cut short"),
        (fake_answerer.open_dying, "exit code -9"),
    ],
)
def test_a_model_that_cannot_be_opened_is_named(opener, message):
    with pytest.raises(CheckpointError, match=message):
        profile(
            {"bad": openers("bad", opener)}, questions=QUESTIONS, config=CONFIG, max_new_tokens=8
        )


def test_work_that_fails_beside_it_ends_the_processes():
    with (
        pytest.raises(ValueError, match="mine"),
        profiling(
            {"light": openers("light")}, questions=QUESTIONS, config=CONFIG, max_new_tokens=8
        ),
    ):
        raise ValueError("mine")
    assert not [child for child in multiprocessing.active_children() if child.is_alive()]
