"""Of which rules it can be shown, on held-out questions, that they keep what is promised.

Learn then test (Angelopoulos et al. 2021, arXiv:2110.01052): each rule's null hypothesis is that it
breaks the promise; rules are tested one after another, in an order that other questions gave, until
one cannot be rejected (sec. 2.3.3, fixed sequence testing with a learnt order). Whatever the
distribution, a rule that breaks its promise is certified with a probability of at most
`max_error_ratio`. The p-values are those of betting (Waudby-Smith and Ramdas 2023,
arXiv:2010.09686, sec. 4): exact for any number of groups, small where the losses vary little.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from limbeck.contracts.tier_router import EscalationRule, TestedRule
from limbeck.evaluation.tier_routing.drafts import TierDrafts, order_groups
from limbeck.evaluation.tier_routing.fit import Gains
from limbeck.evaluation.tier_routing.rules import assign_tiers, routed_right

MAX_BET_RATIO = 0.9
"""Of what a bet may at most be: a gambler who stakes all is ruined by one bad draw."""


def betting_p_value(
    losses: Float[np.ndarray, " groups"], *, bound: float, max_error_ratio: float
) -> float:
    """Of the hypothesis that the mean of losses from 0 to 1 is at least `bound`.

    One gambler stakes on every loss being below the bound, by what the earlier ones suggest; were
    the hypothesis true, nobody could expect to win. One over the most that was ever won is a
    p-value (Ville's inequality).
    """
    count = len(losses)
    if not count or not 0 < bound < 1:
        return 1.0
    seen = np.arange(1, count + 1)
    means = (0.5 + np.cumsum(losses)) / (seen + 1)
    variances = (0.25 + np.cumsum(np.square(losses - means))) / (seen + 1)
    known = np.concatenate([[0.25], variances[:-1]])
    stakes = np.sqrt(2 * math.log(1 / max_error_ratio) / (count * known))
    stakes = np.minimum(stakes, MAX_BET_RATIO / (1 - bound))
    won = np.cumsum(np.log1p(stakes * (bound - losses)))
    return float(min(1.0, math.exp(-max(0.0, won.max()))))


def promise_p_value(
    drafts: TierDrafts,
    *,
    routed: Bool[np.ndarray, " questions"],
    min_kept_ratio: float,
    max_error_ratio: float,
    seed: int,
) -> float:
    """Of the hypothesis that the routed answers keep less of the largest tier's accuracy.

    The loss of a question is what is promised of the largest tier's answer, minus the routed one:
    from -1 to `min_kept_ratio`; of a group, the mean.
    """
    losses = min_kept_ratio * drafts.is_right[0] - routed
    by_group = dict(zip(*_mean_by_group(losses, drafts.groups), strict=True))
    ordered = np.array([by_group[group] for group in order_groups(drafts.groups, seed=seed)])
    width = 1 + min_kept_ratio
    return betting_p_value((ordered + 1) / width, bound=1 / width, max_error_ratio=max_error_ratio)


def _mean_by_group(
    values: Float[np.ndarray, " questions"], groups: Sequence[str]
) -> tuple[list[str], Float[np.ndarray, " groups"]]:
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    return names.tolist(), np.bincount(inverse, weights=values) / np.bincount(inverse)


@dataclass(frozen=True)
class Part:
    """Drafts, with the gains that models which never met them expect."""

    drafts: TierDrafts
    gains: Gains

    def assign(self, rule: EscalationRule) -> Int[np.ndarray, " questions"]:
        """The tier that answers each question by a rule."""
        return assign_tiers(self.gains, is_foreign=self.drafts.is_foreign, rule=rule)


def try_rules(
    rules: Sequence[EscalationRule],
    *,
    fitted: Part,
    certified: Part,
    min_kept_ratio: float,
    max_error_ratio: float,
    seed: int,
) -> list[TestedRule]:
    """The rules in the order of their tests, the likeliest first, until one failed."""

    def test(part: Part, rule: EscalationRule) -> float:
        return promise_p_value(
            part.drafts,
            routed=routed_right(part.drafts.is_right, tiers=part.assign(rule)),
            min_kept_ratio=min_kept_ratio,
            max_error_ratio=max_error_ratio,
            seed=seed,
        )

    first = [(test(fitted, rule), float((fitted.assign(rule) == 0).mean()), rule) for rule in rules]
    found: list[TestedRule] = []
    has_failed = False
    for _, ratio, rule in sorted(first, key=lambda item: item[:2]):
        p_value = None if has_failed else test(certified, rule)
        has_failed = p_value is None or p_value > max_error_ratio
        found.append(TestedRule(rule=rule, largest_ratio=ratio, p_value=p_value))
    return found


def choose_rule(tested: Sequence[TestedRule], *, max_error_ratio: float) -> TestedRule | None:
    """The certified rule that asks the largest tier least; None where none is certified."""
    passed = [
        item for item in tested if item.p_value is not None and item.p_value <= max_error_ratio
    ]
    return min(passed, key=lambda item: item.largest_ratio, default=None)
