"""Profiles taken in real fresh processes."""

import functools
import multiprocessing
from pathlib import Path

import pytest

from limbeck.contracts.answerer import Size
from limbeck.contracts.errors import CheckpointError, PromptLengthError
from limbeck.env.threads import ThreadChoice
from limbeck.evaluation.profiling.profile import Profile, ProfileConfig, profiling
from limbeck.evaluation.profiling.worker import Opened, Timing
from tests.support import fake_answerer

CONFIG = ProfileConfig(questions=2, rounds=2, thread_counts=(1, 2))
QUESTIONS = ["高血压去医院看什么科？", "高血压通常会出现什么症状？", "多余的问题"]


def profile(openers, **settings):
    with profiling(openers, **settings) as processes:
        return processes.measure()


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
    # What the libraries take stands in the base and not in the peak.
    opened = found["light"].opened
    assert opened.peak_memory_bytes < 16 * 2**20 < opened.base_memory_bytes


def test_answers_are_timed_with_each_number_of_threads(tmp_path):
    found = profile(
        {"one": openers(tmp_path / "one", fake_answerer.open_threaded)},
        questions=QUESTIONS,
        config=CONFIG,
        max_new_tokens=64,
    )
    for num_threads in (1, 2):
        counts = {timing.num_tokens for timing in found["one"].timings[num_threads]}
        assert counts == {num_threads}
        assert found["one"].latency(num_threads).tokens_per_answer == num_threads


def test_questions_that_a_model_does_not_read_are_not_timed(caplog):
    config = ProfileConfig(questions=3, rounds=1, thread_counts=(1,))
    models = {"all": openers("all"), "some": openers("some", fake_answerer.open_short)}
    found = profile(models, questions=QUESTIONS, config=config, max_new_tokens=64)
    assert [len(item.timings[1]) for item in found.values()] == [2, 2]
    assert "1 of 3 questions are longer than a model reads" in caplog.text
    with pytest.raises(PromptLengthError, match="some: every question to be timed is longer"):
        profile(models, questions=QUESTIONS[1:2], config=config, max_new_tokens=64)


def test_a_latency_is_a_median_and_one_slow_answer_moves_only_the_tail():
    timings = tuple(Timing(seconds, 3) for seconds in (1.0, 1.0, 1.0, 2.0, 15.0))
    latency = Profile(
        Opened(Size(1, 1, 1), 0, 0, "none"),
        {1: timings},
        {},
        ThreadChoice(1, "work is shared", 1, 1, 1),
    ).latency(1)
    assert (latency.p50, latency.answers) == (1.0, 5)
    assert latency.p95 == pytest.approx(2.0 + 0.8 * 13.0)
    assert latency.tokens_per_second == pytest.approx(15 / 20)


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
