"""What a router learns: from drafts whose rightness follows a rule that is known."""

import numpy as np
import pytest

from limbeck.contracts.tier_router import (
    ALWAYS,
    NEVER,
    NUM_BUCKETS,
    Draft,
    EscalationRule,
    draft_figures,
    text_buckets,
)
from limbeck.evaluation.tier_routing.drafts import TierDrafts, assign_folds, split_by_group
from limbeck.evaluation.tier_routing.fit import (
    Gains,
    choose_inputs,
    fit_gain,
    fit_tiers,
    share_of_budgets,
)
from limbeck.evaluation.tier_routing.rules import (
    assign_tiers,
    make_rules,
    min_gain_before,
    routed_right,
)

COUNT = 400


def make_drafts(*, by_text=False, num_smaller=1):
    """Of large and small tiers: the small one is right where it is sure, or in one kind of text."""
    rng = np.random.default_rng(0)
    ratio = rng.uniform(0.05, 1, size=COUNT)
    kinds = rng.integers(0, 2, size=COUNT)
    questions = [
        f"{'高血压吃什么药' if kind else '哮喘看哪个科'}{number}"
        for number, kind in enumerate(kinds)
    ]
    small = kinds == 1 if by_text else rng.uniform(size=COUNT) < ratio
    large = rng.uniform(size=COUNT) < 0.8
    drafts = tuple(
        Draft(question, "答", float(value))
        for question, value in zip(questions, ratio, strict=True)
    )
    return TierDrafts(
        drafts=(drafts,) * (1 + num_smaller),
        is_right=np.array([large, *[small] * num_smaller]),
        is_foreign=np.zeros(COUNT, dtype=bool),
        groups=tuple(f"g{number // 2}" for number in range(COUNT)),
    )


def mean_accuracy(gain, drafts):
    gained = drafts.is_right[0].astype(float) - drafts.is_right[-1]
    return float(drafts.is_right[-1].mean() + (share_of_budgets(gain) * gained).mean())


def test_the_simplest_inputs_do_where_the_probability_decides_all():
    drafts = make_drafts()
    models, gains = fit_tiers(drafts, seed=0)
    assert models.after[0].gain.inputs == "log_prob"
    assert mean_accuracy(gains.after[0], drafts) > mean_accuracy(np.zeros(COUNT), drafts) + 0.05


def test_the_text_counts_where_it_adds_more():
    drafts = make_drafts(by_text=True)
    models, gains = fit_tiers(drafts, seed=0)
    assert models.after[0].gain.inputs == "figures and text"
    is_small_right = drafts.is_right[1]
    assert gains.after[0][~is_small_right].min() > gains.after[0][is_small_right].max()
    assert gains.before[~is_small_right].min() > gains.before[is_small_right].max()
    assert {name: len(item) for name, item in models.weights().items()} == dict.fromkeys(
        ("tier1.largest", "tier1.own", "before.largest", "before.own"), NUM_BUCKETS
    )


def test_the_gain_of_others_is_computed_as_it_was_fitted():
    drafts = make_drafts(num_smaller=2)
    models, _ = fit_tiers(drafts, seed=0)
    gains = models.compute(drafts)
    assert gains.after.shape == (2, COUNT)
    assert np.abs(gains.after).max() <= 1 and np.abs(gains.before).max() <= 1


def test_a_draft_that_is_not_shown_is_right_for_nobody():
    drafts = make_drafts()
    settings = {"largest_right": drafts.is_right[0], "own_right": drafts.is_right[1]}
    found = fit_gain(drafts.drafts[1], **settings, inputs="log_prob", name="x")
    shown, hidden = Draft("q", "a", 0.9), Draft("q", "a", 0.9, is_shown=False)
    gains = [found.gain.compute(draft, weights={}) for draft in (shown, hidden)]
    assert gains[0] < 0.1 < 0.6 < gains[1]


@pytest.mark.parametrize("right", [0, 1])
def test_tiers_that_are_always_or_never_right_can_be_fitted(right):
    drafts = make_drafts()
    drafts.is_right[:] = right
    models, gains = fit_tiers(drafts, seed=0)
    assert np.abs(gains.after).max() < 0.01
    assert np.abs(models.compute(drafts).before).max() < 0.01


def test_no_group_stands_in_two_parts_or_folds():
    groups = [f"g{number % 50}" for number in range(200)]
    first, second = split_by_group(groups, first_ratio=0.5, seed=0)
    assert sorted([*first, *second]) == list(range(200))
    assert not {groups[place] for place in first} & {groups[place] for place in second}
    folds = assign_folds(groups, num_folds=5, seed=0)
    assert all(len({folds[p] for p in range(200) if groups[p] == name}) == 1 for name in groups)
    assert sorted(np.bincount(folds)) == [40] * 5


def test_of_equal_candidates_the_first_is_taken():
    gain = np.linspace(-1, 1, 100)
    gained = np.sign(gain)
    groups = [str(number) for number in range(100)]
    same = {"log_prob": gain, "figures": gain * 2, "figures and text": gain - 1}
    assert choose_inputs(same, gained=gained, groups=groups) == "log_prob"
    worse = same | {"log_prob": -gain}
    assert choose_inputs(worse, gained=gained, groups=groups) == "figures"


def test_shares_of_budgets_are_ranks_with_ties_in_the_middle():
    assert share_of_budgets(np.array([3.0, 1.0, 2.0])).tolist() == pytest.approx(
        [5 / 6, 1 / 6, 0.5]
    )
    assert share_of_budgets(np.zeros(4)).tolist() == [0.5] * 4


def make_gains(after, before):
    return Gains(np.array(after, dtype=float), np.array(before, dtype=float))


def test_a_question_stops_at_the_first_tier_that_keeps_it():
    gains = make_gains(
        [[0.9, 0.9, 0.1, 0.1, 0.9], [0.9, 0.1, 0.9, 0.1, 0.1]], [-1, -1, -1, -1, 0.9]
    )
    rule = EscalationRule(min_gain=0.5, min_gain_before=0.5)
    is_foreign = np.zeros(5, dtype=bool)
    found = assign_tiers(gains, is_foreign=is_foreign, rule=rule)
    assert found.tolist() == [0, 2, 1, 2, 0]
    is_foreign[:] = True
    assert assign_tiers(gains, is_foreign=is_foreign, rule=rule).tolist() == [2] * 5
    is_right = np.array([[1, 0, 0, 0, 1], [0, 0, 1, 0, 0], [0, 1, 0, 1, 0]], dtype=bool)
    assert routed_right(is_right, tiers=found).all()


def test_rules_send_ever_more_questions_up():
    _, gains = fit_tiers(make_drafts(), seed=0)
    is_foreign = np.zeros(COUNT, dtype=bool)
    rules = make_rules(gains)
    shares = [(assign_tiers(gains, is_foreign=is_foreign, rule=rule) == 0).mean() for rule in rules]
    assert shares[0] == 0 and shares == sorted(shares) and shares[-1] > 0.9


def test_few_pass_over_the_small_tier_that_its_draft_would_keep():
    before = np.linspace(1, -1, 100)
    gains = make_gains([np.where(np.arange(100) < 40, 0.9, -0.9)], before)
    found = min_gain_before(gains, min_gain=0.0)
    passed = before > found
    assert passed.sum() == 44 and (gains.after[0][passed] > 0).mean() >= 0.9
    nothing = make_gains([np.full(100, -0.9)], before)
    assert min_gain_before(nothing, min_gain=0.0) == NEVER
    everything = make_gains([np.full(100, 0.9)], before)
    assert min_gain_before(everything, min_gain=0.0) == ALWAYS


@pytest.mark.parametrize("question", ["", " ", "？", "a", "𠮷" * 10_000, "\ud800", "\u200b\u200b"])
def test_any_text_has_figures_and_buckets(question):
    figures, buckets = draft_figures(Draft(question, question, 0.0)), text_buckets(question)
    assert np.isfinite(figures).all()
    assert len(buckets) and buckets.min() >= 0 and buckets.max() < NUM_BUCKETS
