"""Scores: known values, edges of lists, and intervals that hold what they estimate."""

import numpy as np
import pytest

from limbeck.contracts.leaks import normalise
from limbeck.evaluation.metrics import (
    accuracy_ratio,
    clustered_interval,
    clustered_mean,
    entity_f1,
    exact_match,
    percentile,
    ratio_of_sums,
    speed_ratio,
    split_items,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [
        (8, 10, 0.4901625, 0.9433178),  # R: prop.test(8, 10, correct = FALSE)
        (0, 10, 0.0, 0.2775328),
        (10, 10, 0.7224672, 1.0),
        (50, 100, 0.4038315, 0.5961685),
    ],
)
def test_wilson_interval_has_the_known_ends(correct, count, low, high):
    share = wilson_interval(correct, count)
    assert share.value == correct / count
    assert share.low == pytest.approx(low, abs=1e-6)
    assert share.high == pytest.approx(high, abs=1e-6)


def test_wilson_interval_of_nothing_is_everything():
    share = wilson_interval(0, 0)
    assert (share.low, share.high, share.count) == (0.0, 1.0, 0)


def test_questions_each_of_a_group_of_its_own_have_wilsons_interval():
    correct = np.arange(50) % 3 > 0
    found = clustered_interval(correct=correct, groups=[str(n) for n in range(50)])
    known = wilson_interval(int(correct.sum()), 50)
    assert found.count == 50
    assert found.value == known.value
    # The clustered variance divides by one group fewer.
    np.testing.assert_allclose([found.low, found.high], [known.low, known.high], atol=0.003)


def test_questions_asked_twice_count_once():
    correct = np.arange(50) % 3 > 0
    twice = clustered_interval(
        correct=np.repeat(correct, 2), groups=[str(n // 2) for n in range(100)]
    )
    once = clustered_interval(correct=correct, groups=[str(n) for n in range(50)])
    assert twice.count == 100
    np.testing.assert_allclose([twice.low, twice.high], [once.low, once.high], atol=1e-9)


def test_where_all_answers_agree_the_groups_are_counted():
    found = clustered_interval(correct=np.ones(12, dtype=bool), groups=["a"] * 6 + ["b"] * 6)
    assert (found.low, found.high) == (wilson_interval(2, 2).low, 1.0)


def test_a_clustered_interval_covers_as_often_as_stated():
    rng = np.random.default_rng(0)
    groups = [str(n // 4) for n in range(400)]
    covered = 0
    for _ in range(300):
        correct = np.repeat(rng.random(100) < 0.8, 4)
        found = clustered_interval(correct=correct, groups=groups)
        covered += found.low <= 0.8 <= found.high
    assert 0.91 < covered / 300 < 0.99


def test_wilson_interval_narrows_with_the_count():
    spans = [wilson_interval(n // 2, n) for n in (10, 100, 1000)]
    assert spans[0].high - spans[0].low > spans[1].high - spans[1].low
    assert spans[1].high - spans[1].low > spans[2].high - spans[2].low


def test_normalising_forgets_width_case_punctuation_and_spaces():
    assert normalise("ＣＴ 检查。") == normalise("ct检查") == "ct检查"
    assert normalise(normalise("血压 > 140/90！")) == normalise("血压 > 140/90！")


@pytest.mark.parametrize(
    ("answer", "right"),
    [("心血管内科。", True), (" 心血管内科", True), ("心血管", False), ("", False), ("。", False)],
)
def test_exact_match(answer, right):
    assert exact_match(answer, expected=("心血管内科",)) is right


@pytest.mark.parametrize(
    ("answer", "f1"),
    [
        ("头晕、头痛、心悸", 1.0),
        ("心悸，头痛和头晕。", 1.0),
        ("头痛及头晕;心悸", 1.0),
        ("头晕、头晕、头痛、心悸", 1.0),
        ("头晕、头痛", 0.8),
        ("头晕、头痛、心悸、咳嗽", 6 / 7),
        ("咳嗽", 0.0),
        ("", 0.0),
        ("、、", 0.0),
    ],
)
def test_entity_f1(answer, f1):
    assert entity_f1(answer, expected=("头晕", "头痛", "心悸")) == pytest.approx(f1)


def test_a_conjunction_inside_a_known_name_does_not_divide_it():
    assert entity_f1("血氧饱和度监测、血常规", expected=("血常规", "血氧饱和度监测")) == 1.0
    assert split_items("饱和度", known=()) == {"饱", "度"}


def test_accuracy_ratio_of_a_model_to_itself_is_one():
    correct = np.array([True, False, True, True])
    found = accuracy_ratio(correct=correct, reference=correct, groups=list("abcd"))
    assert found is not None
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_accuracy_ratio_interval_holds_the_ratio_and_repeats():
    rng = np.random.default_rng(3)
    reference = rng.random(300) < 0.9
    correct = reference & (rng.random(300) < 0.95)
    groups = [str(index // 3) for index in range(300)]
    first = accuracy_ratio(correct=correct, reference=reference, groups=groups)
    again = accuracy_ratio(correct=correct, reference=reference, groups=groups)
    assert first is not None
    assert first == again
    assert first.low < first.value < first.high < 1.0
    assert first.value == pytest.approx(correct.sum() / reference.sum())


def test_accuracy_ratio_of_a_reference_that_knows_nothing_is_undefined():
    nothing = np.zeros(3, dtype=bool)
    assert accuracy_ratio(correct=~nothing, reference=nothing, groups=list("abc")) is None


def test_questions_that_stand_and_fall_together_widen_the_interval():
    reference = np.ones(120, dtype=bool)
    correct = np.repeat(np.random.default_rng(0).random(12) < 0.7, 10)
    together = accuracy_ratio(
        correct=correct, reference=reference, groups=[str(index // 10) for index in range(120)]
    )
    apart = accuracy_ratio(
        correct=correct, reference=reference, groups=[str(index) for index in range(120)]
    )
    assert together is not None and apart is not None
    assert together.high - together.low > apart.high - apart.low


def test_speed_ratio_of_exactly_half_the_time_is_two():
    seconds = np.linspace(0.1, 0.2, 20)
    found = speed_ratio(seconds=seconds / 2, reference_seconds=seconds)
    assert found.value == pytest.approx(2.0)
    assert found.low == pytest.approx(2.0) and found.high == pytest.approx(2.0)


def test_percentile_interpolates():
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5


def test_the_interval_of_a_mean_counts_a_group_once():
    values = np.array([-1.0, -2.0, -4.0, -3.0])
    alone = clustered_mean(values=values, groups=list("abcd"))
    error = values.std(ddof=1) / 2
    assert alone.value == values.mean()
    np.testing.assert_allclose(
        [alone.low, alone.high], values.mean() + 1.959964 * error * np.array([-1, 1]), rtol=1e-6
    )
    twice = clustered_mean(values=values.repeat(2), groups=list("aabbccdd"))
    np.testing.assert_allclose([twice.low, twice.high], [alone.low, alone.high])


def test_a_speed_ratio_is_of_medians_so_one_slow_answer_does_not_move_it():
    seconds = np.array([1.0] * 20 + [500.0])
    reference = np.array([3.0] * 19 + [900.0, 900.0])
    found = speed_ratio(seconds=seconds, reference_seconds=reference)
    assert (found.value, found.low, found.high) == (3.0, 3.0, 3.0)


def test_a_speed_ratio_is_of_answers_to_the_same_questions():
    seconds = np.linspace(0.1, 2.0, 40)
    found = speed_ratio(seconds=seconds, reference_seconds=2 * seconds)
    assert found.high - found.low == pytest.approx(0.0, abs=1e-12)


def test_what_is_kept_of_a_reference_that_knows_all_varies_as_a_share_does():
    correct = np.arange(400) % 10 < 7
    groups = [str(n) for n in range(400)]
    found = accuracy_ratio(correct=correct, reference=np.ones(400, dtype=bool), groups=groups)
    assert found is not None
    width = 2 * 1.959964 * np.sqrt(0.7 * 0.3 / 400)
    assert found.high - found.low == pytest.approx(width, rel=0.08)
    assert (found.high + found.low) / 2 == pytest.approx(0.7, abs=0.05 * width)


def test_what_is_kept_is_paired_question_by_question():
    rng = np.random.default_rng(1)
    reference = rng.random(400) < 0.5
    correct = reference & (rng.random(400) < 0.9)
    groups = [str(n // 2) for n in range(400)]
    found = accuracy_ratio(correct=correct, reference=reference, groups=groups)
    assert found is not None
    known = ratio_of_sums(
        sums=correct.reshape(-1, 2).sum(axis=1).astype(float),
        counts=reference.reshape(-1, 2).sum(axis=1),
    )
    assert found.value == pytest.approx(known.value)
    assert found.high - found.low == pytest.approx(known.high - known.low, rel=0.1)
    # Unpaired, the shares of both would vary: 0.45 over 0.5 has an interval three times as wide.
    shuffled = rng.permutation(400)
    apart = accuracy_ratio(correct=correct, reference=reference[shuffled], groups=groups)
    assert apart is not None
    assert apart.high - apart.low > 2.5 * (found.high - found.low)
