"""The promise of a router: how often it fails, and how soon it is found to hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.contracts.tier_router import NEVER, Draft, EscalationRule
from limbeck.evaluation.tier_routing.certify import (
    Part,
    betting_p_value,
    choose_rule,
    promise_p_value,
    try_rules,
)
from limbeck.evaluation.tier_routing.drafts import TierDrafts
from limbeck.evaluation.tier_routing.fit import Gains


@pytest.mark.parametrize("draw", ["two values", "uniform", "rare"])
def test_a_broken_promise_is_certified_no_oftener_than_stated(draw):
    """2,000 trials on the edge: the mean of the losses is the bound."""
    rng = np.random.default_rng(0)
    size = (2000, 120)
    losses = {
        "two values": rng.integers(0, 2, size=size).astype(float),
        "uniform": rng.uniform(0, 1, size=size),
        "rare": (rng.uniform(size=size) < 0.02) * 1.0,
    }[draw]
    bound = {"two values": 0.5, "uniform": 0.5, "rare": 0.02}[draw]
    p_values = [betting_p_value(row, bound=bound, max_error_ratio=0.1) for row in losses]
    for level in (0.01, 0.05, 0.1, 0.3):
        share = np.mean(np.array(p_values) <= level)
        assert share <= level + 3 * np.sqrt(level / len(losses)), level


def test_a_kept_promise_is_found():
    rng = np.random.default_rng(0)
    losses = rng.uniform(0, 0.8, size=(200, 200))
    found = [betting_p_value(row, bound=0.5, max_error_ratio=0.1) <= 0.1 for row in losses]
    assert np.mean(found) > 0.99


@given(
    losses=st.lists(st.floats(0, 1), max_size=40),
    bound=st.floats(0, 1),
    max_error_ratio=st.floats(0.001, 0.5),
)
def test_a_p_value_is_one(losses, bound, max_error_ratio):
    found = betting_p_value(np.array(losses), bound=bound, max_error_ratio=max_error_ratio)
    assert 0 < found <= 1


def make_part(*, right, gain, before=None):
    count = len(gain)
    drafts = TierDrafts(
        drafts=tuple(tuple(Draft(f"q{i}", "a", 0.5) for i in range(count)) for _ in right),
        is_right=np.array(right, dtype=bool),
        is_foreign=np.zeros(count, dtype=bool),
        groups=tuple(f"g{i}" for i in range(count)),
    )
    before = np.full(count, -1.0) if before is None else np.array(before, dtype=float)
    return Part(drafts, Gains(np.array([gain], dtype=float), before))


def test_a_group_counts_once():
    """A hundred phrasings of one fact are one observation."""
    part = make_part(right=[[0] * 100, [1] * 100], gain=[0.0] * 100)
    one = TierDrafts(part.drafts.drafts, part.drafts.is_right, part.drafts.is_foreign, ("g",) * 100)
    settings = {"min_kept_ratio": 0.99, "max_error_ratio": 0.1, "seed": 0}
    routed = np.ones(100, dtype=bool)
    assert promise_p_value(part.drafts, routed=routed, **settings) < 1e-6
    assert promise_p_value(one, routed=routed, **settings) > 0.1


def try_both(*, fitted, certified):
    rules = [
        EscalationRule(min_gain=NEVER, min_gain_before=NEVER),
        EscalationRule(min_gain=0.0, min_gain_before=NEVER),
    ]
    return try_rules(
        rules,
        fitted=fitted,
        certified=certified,
        min_kept_ratio=0.99,
        max_error_ratio=0.1,
        seed=0,
    )


def test_the_certified_rule_that_asks_least_is_taken():
    """The smaller tier is right wherever the larger is, and oftener: nothing need go up."""
    rng = np.random.default_rng(0)
    large = rng.uniform(size=400) < 0.4
    small = large | (rng.uniform(size=400) < 0.3)
    part = make_part(right=[large, small], gain=rng.uniform(-1, 1, size=400))
    tested = try_both(fitted=part, certified=part)
    chosen = choose_rule(tested, max_error_ratio=0.1)
    assert chosen.rule.min_gain == NEVER
    assert chosen.largest_ratio == 0


def test_nothing_is_certified_where_the_small_tier_is_worse():
    rng = np.random.default_rng(0)
    large = rng.uniform(size=400) < 0.8
    small = large & (rng.uniform(size=400) < 0.7)
    part = make_part(right=[large, small], gain=rng.uniform(-1, 1, size=400))
    tested = try_both(fitted=part, certified=part)
    assert choose_rule(tested, max_error_ratio=0.1) is None
    assert [item.p_value is None for item in tested] == [False, True]


def test_after_one_failure_nothing_more_is_tested():
    """Otherwise the errors of many tests would add up."""
    rng = np.random.default_rng(0)
    large = rng.uniform(size=300) < 0.5
    good = make_part(right=[large, large | True], gain=[1.0] * 300)
    bad = make_part(right=[large, large & False], gain=[1.0] * 300)
    tested = try_both(fitted=good, certified=bad)
    assert sum(item.p_value is not None for item in tested) == 1
    assert choose_rule(tested, max_error_ratio=0.1) is None
