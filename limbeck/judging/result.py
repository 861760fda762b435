"""Who won: a win rate with its interval, and how far the judge went by place."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.contracts.errors import EndpointError
from limbeck.evaluation.metrics import (
    Interval,
    Share,
    clustered_interval,
    clustered_mean,
    wilson_interval,
)
from limbeck.judging.judge import PairVerdict

POINTS = {"a": 1.0, "tie": 0.5, "b": 0.0}


@dataclass(frozen=True)
class JudgeResult:
    """Model A against model B, by one judge."""

    models: tuple[str, str]
    judge: str
    num_pairs: int
    """With a verdict, or with the same text twice."""
    wins: tuple[int, int]
    """Of A and of B: preferred in both orders."""
    ties: int
    num_same: int
    """Of the ties, pairs of the same text, about which nobody was asked."""
    num_unreadable: int
    """Pairs without a verdict, which count nowhere."""
    win_rate: Interval
    """A's wins and half of the ties, over all pairs."""
    position_bias: Share
    """Of the pairs that were asked, those whose verdict changes with the order."""
    prefers_first_ratio: float
    """Of all verdicts that are no tie, those for the answer that stood first; 0.5 is fair."""


def summarize(
    verdicts: Sequence[PairVerdict], *, models: tuple[str, str], judge: str
) -> JudgeResult:
    """The result of all pairs.

    Raises:
        EndpointError: no pair has a verdict.
    """
    counted = [item for item in verdicts if not item.unreadable]
    if not counted:
        raise EndpointError(f"no pair got a verdict; the first: {verdicts[0].unreadable}")
    asked = [item for item in counted if item.verdicts is not None]
    winners = Counter(item.winner for item in counted)
    places = Counter(place for item in asked for place in item.verdicts or ())
    num_placed = places["first"] + places["second"]
    return JudgeResult(
        models=models,
        judge=judge,
        num_pairs=len(counted),
        wins=(winners["a"], winners["b"]),
        ties=winners["tie"],
        num_same=len(counted) - len(asked),
        num_unreadable=len(verdicts) - len(counted),
        win_rate=_win_rate(counted),
        position_bias=clustered_interval(
            correct=np.array([item.changes for item in asked], dtype=bool),
            groups=[item.cluster for item in asked],
        ),
        prefers_first_ratio=places["first"] / num_placed if num_placed else 0.5,
    )


def _win_rate(counted: Sequence[PairVerdict]) -> Interval:
    """The mean of points; where all pairs went alike, no variance tells, and Wilson's stands in."""
    points = np.array([POINTS[item.winner] for item in counted])
    groups = [item.cluster for item in counted]
    if len(set(points)) > 1 and len(set(groups)) > 1:
        found = clustered_mean(values=points, groups=groups)
        return Interval(found.value, max(found.low, 0.0), min(found.high, 1.0))
    num_groups = len(set(groups))
    share = wilson_interval(round(float(points.mean()) * num_groups), num_groups)
    value = float(points.mean())
    return Interval(value, min(share.low, value), max(share.high, value))
