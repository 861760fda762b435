"""Paired differences, Holm's correction and rank correlations: parity and error rates."""

import numpy as np
import pytest
from scipy import stats

from limbeck.tuning.comparison import adjust_holm, correlate_ranks, paired_difference

GROUPS = [f"g{index}" for index in range(40)]
ONES = np.ones(40)


def test_one_seed_of_questions_of_their_own_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    scores, reference = rng.random((2, 1, 40))
    found = paired_difference(scores=scores, reference=reference, sizes=ONES, groups=GROUPS)
    expected = stats.ttest_rel(scores[0], reference[0])
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_a_difference_is_one_per_token_and_groups_vary_together():
    values = np.array([[2.0, 4.0, 0.0, 1.0]])
    sizes = np.array([1.0, 2.0, 3.0, 4.0])
    found = paired_difference(
        scores=values, reference=np.zeros((1, 4)), sizes=sizes, groups=["a", "a", "b", "b"]
    )
    assert found.value == pytest.approx(0.7)
    alone = paired_difference(
        scores=values, reference=np.zeros((1, 4)), sizes=sizes, groups=["a", "b", "c", "d"]
    )
    assert found.p >= 0.5  # two groups agree by chance every other time
    assert alone.p < found.p


@pytest.mark.parametrize(("of_seeds", "of_questions"), [(0.0, 1.0), (0.3, 1.0), (1.0, 0.3)])
def test_settings_that_are_equal_differ_in_at_most_one_of_twenty_intervals(of_seeds, of_questions):
    """Seeds and questions are chance; three seeds know little, so intervals may be wider."""
    rng = np.random.default_rng(1)
    outside = 0
    for _ in range(400):
        scores = (
            rng.normal(0, of_seeds, size=(3, 1))
            + rng.normal(0, of_questions, size=(1, 40))
            + rng.normal(0, 0.5, size=(3, 40))
        )
        found = paired_difference(
            scores=scores, reference=np.zeros((3, 40)), sizes=ONES, groups=GROUPS
        )
        outside += not found.low <= 0 <= found.high
    assert outside / 400 <= 0.075  # 0.05 and a little more than two standard errors


def test_equal_runs_differ_by_nothing_and_few_groups_show_nothing():
    same = np.ones((2, 5))
    groups = list("abcde")
    found = paired_difference(scores=same, reference=same, sizes=np.ones(5), groups=groups)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    found = paired_difference(scores=same, reference=0 * same, sizes=np.ones(5), groups=groups)
    assert found.value == 1
    assert found.p > 0.05


def test_holm_multiplies_by_what_is_left_and_never_falls():
    assert adjust_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjust_holm([0.9, 0.8]) == [1.0, 1.0]
    assert adjust_holm([]) == []


def test_rank_correlations_are_scipys_and_need_several_trials():
    early, final = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 3.0, 2.0, 4.0, 6.0, 5.0]
    found = correlate_ranks(early, final=final, fewest=5)
    assert found.spearman == pytest.approx(stats.spearmanr(early, final).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(early, final).statistic)
    assert found.low < found.spearman < found.high <= 1
    assert correlate_ranks(early[:4], final=final[:4], fewest=5) is None
    assert correlate_ranks(early, final=[1.0] * 6, fewest=5) is None
    whole = correlate_ranks(early, final=early, fewest=5)
    assert whole.spearman == pytest.approx(1)
