"""How well a model separates findings in images: areas under ROC curves, and each one's recall.

Accuracy hangs on where the model draws the line; the area does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from limbeck.evaluation.answer_questions import AnsweredQuestion, count_correct
from limbeck.evaluation.metrics import Interval, Share, percentile_interval, redraw

NUM_SAMPLES = 1000


@dataclass(frozen=True)
class RocResult:
    """How well a model separates the findings of one task."""

    auc: Interval
    images: int
    questions: int
    by_finding: Mapping[str, Share]
    """Of the questions about each finding, the share answered right."""


def area_under_roc(
    scores: Float[np.ndarray, " questions"], *, positive: Bool[np.ndarray, " questions"]
) -> float:
    """The chance that a positive scores above a negative, ties by half; NaN if one is absent.

    The Mann-Whitney statistic of mean ranks (Hanley and McNeil 1982, Radiology 143).
    """
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    ranks = mean_ranks[inverse][positive].sum()
    return float((ranks - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def margins(
    option_scores: Float[np.ndarray, "questions options"],
) -> Float[np.ndarray, "questions options"]:
    """Each option's log-odds against all others; of two options, the difference of their scores."""
    found = np.empty_like(option_scores)
    for option in range(option_scores.shape[1]):
        others = np.delete(option_scores, option, axis=1)
        found[:, option] = option_scores[:, option] - np.logaddexp.reduce(others, axis=1)
    return found


def mean_area(
    option_scores: Float[np.ndarray, "questions options"],
    *,
    right: Int[np.ndarray, " questions"],
    groups: Sequence[str],
) -> Interval:
    """The mean over options of the area of one against all others, with its 95 % interval.

    The interval is a percentile bootstrap that redraws whole groups, since the phrasings about one
    image are right or wrong together. Samples that lack a finding are left out.
    """
    scores = margins(option_scores)
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
    samples = []
    for drawn in redraw(len(members), num_samples=NUM_SAMPLES):
        rows = np.concatenate([members[group] for group in drawn])
        samples.append(_mean_area(scores[rows], right[rows]))
    return percentile_interval(_mean_area(scores, right), samples=samples)


def _mean_area(scores: np.ndarray, right: np.ndarray) -> float:
    options = range(scores.shape[1])
    return float(
        np.mean([area_under_roc(scores[:, item], positive=right == item) for item in options])
    )


def measure_findings(answered: Sequence[AnsweredQuestion]) -> dict[str, RocResult]:
    """The findings of each task about images.

    Tasks where a finding is never right have no area and are left out.
    """
    found = {}
    for task in dict.fromkeys(item.task for item in answered):
        items = [item for item in answered if item.task == task and item.form == "single"]
        items = [item for item in items if len(item.option_scores) > 1]
        if not items or {item.expected[0] for item in items} != set(items[0].options):
            continue
        right = np.array([item.options.index(item.expected[0]) for item in items])
        groups = [item.cluster for item in items]
        scores = np.array([item.option_scores for item in items])
        found[task] = RocResult(
            auc=mean_area(scores, right=right, groups=groups),
            images=len(set(groups)),
            questions=len(items),
            by_finding={
                option: count_correct([item for item in items if item.expected[0] == option])
                for option in items[0].options
            },
        )
    return found
