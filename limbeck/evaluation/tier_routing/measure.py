"""What a router is worth on questions that nothing was fitted on, beside simpler ways to choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from limbeck.contracts.answer_policy import AnswerPolicy, bounded_log
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.tier_router import Promise, TierRouter
from limbeck.evaluation.answer_questions import AnsweredQuestion
from limbeck.evaluation.metrics import (
    Interval,
    Share,
    accuracy_ratio,
    clustered_interval,
    clustered_mean,
)
from limbeck.evaluation.tier_routing.certify import Part
from limbeck.evaluation.tier_routing.drafts import TierDrafts, collect_drafts
from limbeck.evaluation.tier_routing.fit import Gains, share_of_budgets
from limbeck.evaluation.tier_routing.rules import routed_right

Method = Literal["router", "log_prob", "random"]
"""`log_prob`: the drafts of which the smallest tier is least sure go up; `random`: any."""
NUM_SHARES = 20
"""Steps of a curve, from no question that goes up to all of them."""


@dataclass(frozen=True)
class MethodScores:
    """One way to choose the questions that go from the smallest tier to the largest."""

    accuracy: tuple[float, ...]
    """With 0, 1/20, ... of the questions going up."""
    mean_accuracy: Interval
    """Over all these shares."""
    recovered_ratio: float | None
    """Of the gap in accuracy between both tiers, the mean over all shares (APGR, Ong et al. 2024);
    None where the largest tier is no better."""
    least_ratio: float
    """The least share from which on the promised part of the largest tier's accuracy is kept."""
    router_gain: Interval | None
    """The router's mean accuracy minus this one's, paired over groups; None for the router."""


@dataclass(frozen=True)
class TierShare:
    """A tier among the routed questions."""

    name: str
    accuracy: Share
    """If it answered all of them: right, and not declined by the tier itself."""
    answered_ratio: float
    """Of the questions, those that it answers by the rule in use."""


@dataclass(frozen=True)
class MeasuredRouting:
    """A router's rule in use, and its order of the questions beside two others."""

    tiers: tuple[TierShare, ...]
    """From the largest to the smallest."""
    accuracy: Share
    """Of the routed answers: right, and not declined."""
    largest_ratio: Share
    """Of the questions that go to the largest tier."""
    kept: Interval | None
    """Accuracy over the largest tier's; None where that is none."""
    promise: Promise
    methods: Mapping[Method, MethodScores]
    num_left_out: int
    """Questions whose answers are chosen, not written: a service meets none."""


def route_answers(
    router: TierRouter,
    *,
    answers: Mapping[str, Sequence[AnsweredQuestion]],
    policies: Mapping[str, AnswerPolicy],
    content_hashes: Mapping[str, str],
    tasks: Sequence[str],
) -> MeasuredRouting | None:
    """The figures of a router on some tasks' answers, each by the model's name.

    None where nothing could be fitted.

    Raises:
        ArtifactError: one of its tiers is not among the models.
    """
    by_hash = {value: name for name, value in content_hashes.items()}
    missing = [tier.name for tier in router.file.tiers if tier.content_hash not in by_hash]
    if missing:
        raise ArtifactError(
            f"router: its tier {missing[0]!r} is none of the models {', '.join(content_hashes)}; "
            "add it to `models`, or make the router again if the model has changed"
        )
    names = [by_hash[tier.content_hash] for tier in router.file.tiers]
    answered = [[item for item in answers[name] if item.task in tasks] for name in names]
    drafts = collect_drafts(answered, policies=[policies[name] for name in names])
    if router.file.before is None or not len(drafts):
        return None
    return measure_routing(router, drafts, num_left_out=len(answered[0]) - len(drafts))


def measure_routing(
    router: TierRouter, drafts: TierDrafts, *, num_left_out: int
) -> MeasuredRouting:
    """The figures of a router on the tiers' drafts, from the largest to the smallest."""
    tiers = router.file.tiers
    gains = [
        [router.gain(tier.content_hash, draft) for draft in items]
        for tier, items in zip(tiers[1:], drafts.drafts[1:], strict=True)
    ]
    before = [router.gain_before(draft.question) for draft in drafts.drafts[-1]]
    part = Part(drafts, Gains(np.array(gains), np.array(before)))
    found = part.assign(router.file.rule)
    routed = routed_right(drafts.is_right, tiers=found)
    kept = accuracy_ratio(correct=routed, reference=drafts.is_right[0], groups=drafts.groups)
    return MeasuredRouting(
        tiers=tuple(
            TierShare(
                tier.name,
                clustered_interval(correct=drafts.is_right[place], groups=drafts.groups),
                float((found == place).mean()),
            )
            for place, tier in enumerate(tiers)
        ),
        accuracy=clustered_interval(correct=routed, groups=drafts.groups),
        largest_ratio=clustered_interval(correct=found == 0, groups=drafts.groups),
        kept=kept,
        promise=router.file.promise,
        methods=compare_methods(
            part.gains.after[-1], drafts, min_kept_ratio=router.file.promise.min_kept_ratio
        ),
        num_left_out=num_left_out,
    )


def compare_methods(
    gain: Float[np.ndarray, " questions"], drafts: TierDrafts, *, min_kept_ratio: float
) -> dict[Method, MethodScores]:
    """The scores of each way to choose which questions go up."""
    unsure = np.array([-bounded_log(draft.confidence_ratio) for draft in drafts.drafts[-1]])
    orders: dict[Method, np.ndarray] = {
        "router": gain,
        "log_prob": unsure,
        "random": np.zeros(len(gain)),
    }
    own, largest = drafts.is_right[-1].astype(float), drafts.is_right[0].astype(float)
    shares = {method: share_of_budgets(values) for method, values in orders.items()}
    found: dict[Method, MethodScores] = {}
    for method, values in orders.items():
        curve = accuracy_by_share(values, own=own, largest=largest)
        mean = clustered_mean(values=own + shares[method] * (largest - own), groups=drafts.groups)
        gap = float(largest.mean() - own.mean())
        gained = (shares["router"] - shares[method]) * (largest - own)
        found[method] = MethodScores(
            accuracy=tuple(curve.tolist()),
            mean_accuracy=mean,
            recovered_ratio=(mean.value - float(own.mean())) / gap if gap > 0 else None,
            least_ratio=_least_share(curve, least=min_kept_ratio * float(largest.mean())),
            router_gain=None
            if method == "router"
            else clustered_mean(values=gained, groups=drafts.groups),
        )
    return found


def accuracy_by_share(
    order: Float[np.ndarray, " questions"],
    *,
    own: Float[np.ndarray, " questions"],
    largest: Float[np.ndarray, " questions"],
) -> Float[np.ndarray, " shares"]:
    """Accuracy where the first so many questions go up; of equal ones, a part of each."""
    values, inverse, counts = np.unique(-order, return_inverse=True, return_counts=True)
    gained = np.bincount(inverse, weights=largest - own, minlength=len(values))
    places = np.concatenate([[0], np.cumsum(counts)]) / len(order)
    heights = np.concatenate([[0], np.cumsum(gained)]) / len(order)
    return own.mean() + np.interp(np.linspace(0, 1, NUM_SHARES + 1), places, heights)


def _least_share(curve: Sequence[float] | np.ndarray, *, least: float) -> float:
    """The share from which on the accuracy is never below `least`; 1 where it always is."""
    below = np.flatnonzero(np.asarray(curve) < least - 1e-12)
    first = 0 if not len(below) else int(below[-1]) + 1
    return min(first, NUM_SHARES) / NUM_SHARES
