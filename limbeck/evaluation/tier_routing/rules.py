"""Rules of escalation, and the tiers that answer by them: pure functions of gains."""

import numpy as np
from jaxtyping import Bool, Int

from limbeck.contracts.tier_router import ALWAYS, NEVER, EscalationRule
from limbeck.evaluation.tier_routing.fit import Gains

NUM_RULES = 20
"""From no question that goes up by its draft to nearly all of them."""
MIN_PRECISION = 0.9
"""Of the questions that pass over the smaller tiers, so many would go up by their drafts, too."""
LEAST_PASSED = 10
"""With fewer such questions, none passes."""


def make_rules(gains: Gains) -> list[EscalationRule]:
    """Rules by which ever more questions go up by their drafts, from none on."""
    least = np.quantile(gains.after[-1], 1 - np.arange(NUM_RULES) / NUM_RULES, method="lower")
    least[0] = NEVER
    return [
        EscalationRule(
            min_gain=float(value), min_gain_before=min_gain_before(gains, min_gain=float(value))
        )
        for value in dict.fromkeys(least.tolist())
    ]


def min_gain_before(gains: Gains, *, min_gain: float) -> float:
    """From which gain by the question alone on a question would nearly always go up, too."""
    order = np.argsort(-gains.before, kind="stable")
    goes_up = gains.after[-1][order] > min_gain
    passed = np.arange(1, len(order) + 1)
    is_precise = (np.cumsum(goes_up) >= MIN_PRECISION * passed) & (passed >= LEAST_PASSED)
    if not is_precise.any():
        return NEVER
    last = int(np.flatnonzero(is_precise)[-1])
    if last + 1 == len(order):
        return ALWAYS
    # Above the next one: those that are passed over are just the first ones.
    return float(gains.before[order[last + 1]])


def assign_tiers(
    gains: Gains, *, is_foreign: Bool[np.ndarray, " questions"], rule: EscalationRule
) -> Int[np.ndarray, " questions"]:
    """The tier that answers each question; 0 is the largest.

    What is foreign stays with the smallest one, which says that it does not know.
    """
    found = np.zeros(len(gains.before), dtype=np.int64)
    goes_on = gains.before <= rule.min_gain_before
    for place in range(len(gains.after), 0, -1):  # from the smallest up, until one keeps it
        stays = goes_on & (gains.after[place - 1] <= rule.min_gain)
        found[stays] = place
        goes_on &= ~stays
    found[is_foreign] = len(gains.after)
    return found


def routed_right(
    is_right: Bool[np.ndarray, "tiers questions"], *, tiers: Int[np.ndarray, " questions"]
) -> Bool[np.ndarray, " questions"]:
    """Whether each question's tier answers it right."""
    return is_right[tiers, np.arange(len(tiers))]
