"""Tolerance limits: the binomial distribution's own, and kept by as many samples as they say."""

import numpy as np
import pytest
from scipy.stats import beta, binom

from limbeck.evaluation.tolerance_limits import CERTAINTY_RATIO, most_beyond, upper_share


@pytest.mark.parametrize("count", [20, 98, 99, 194, 400, 1000])
def test_as_the_binomial_distribution_says(count):
    found = most_beyond(count, share_ratio=0.03)
    assert binom.cdf(found, count, 0.03) <= 1 - CERTAINTY_RATIO
    assert binom.cdf(found + 1, count, 0.03) > 1 - CERTAINTY_RATIO
    for beyond in (0, 1, count // 3):
        expected = beta.ppf(CERTAINTY_RATIO, beyond + 1, count - beyond)
        assert upper_share(beyond, count=count) == pytest.approx(expected, abs=1e-9)


def test_what_is_allowed_keeps_the_share():
    for count in (99, 250, 1000):
        allowed = most_beyond(count, share_ratio=0.03)
        assert upper_share(allowed, count=count) <= 0.03 < upper_share(allowed + 1, count=count)


def test_too_few_allow_none():
    assert most_beyond(98, share_ratio=0.03) == -1
    assert most_beyond(0, share_ratio=0.03) == -1
    assert upper_share(0, count=0) == upper_share(5, count=5) == 1.0


def test_a_limit_through_a_sample_holds_for_the_population():
    rng = np.random.default_rng(0)
    scores = np.sort(rng.normal(size=(4000, 200)), axis=1)
    limits = scores[:, most_beyond(200, share_ratio=0.03)]
    beyond = (np.sort(rng.normal(size=1_000_000)).searchsorted(limits)) / 1_000_000
    assert (beyond <= 0.03).mean() >= CERTAINTY_RATIO - 0.005
