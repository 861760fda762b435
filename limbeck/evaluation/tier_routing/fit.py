"""The gain of asking the largest tier, as the difference of two chances.

Each chance is a logistic regression. A router that compares two models' qualities is that of
RouteLLM (Ong et al. 2024, arXiv:2406.18665); that a cascade goes by the smaller model's own draft
is FrugalGPT's (Chen et al. 2023, arXiv:2305.05176). Both chances are fitted, since a question that
a small model is unsure of may be beyond the large one too (Jitkrittum et al. 2023,
arXiv:2307.02764).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from limbeck.contracts.tier_router import (
    NUM_BUCKETS,
    NUM_FIGURES,
    Chance,
    Draft,
    Gain,
    Inputs,
    draft_figures,
    text_buckets,
    without_answer,
)
from limbeck.evaluation.metrics import Z_95, clustered_mean
from limbeck.evaluation.tier_routing.drafts import TierDrafts, assign_folds

FIGURES: Mapping[Inputs, tuple[int, ...]] = {
    "log_prob": (0,),
    "figures": (0, 1, 2, 3),
    "figures and text": (0, 1, 2, 3),
    "text": (2,),
}
"""Which of a draft's figures count; the question's length is known before the draft."""
CANDIDATES: tuple[Inputs, ...] = ("log_prob", "figures", "figures and text")
"""From the simplest on."""
NUM_FOLDS = 5
WITH_TEXT: tuple[Inputs, ...] = ("figures and text", "text")


@dataclass(frozen=True)
class FittedGain:
    """A gain, and its weights of the text by name."""

    gain: Gain
    weights: Mapping[str, Float[np.ndarray, f" {NUM_BUCKETS}"]]


def fit_gain(
    drafts: Sequence[Draft],
    *,
    largest_right: Bool[np.ndarray, " questions"],
    own_right: Bool[np.ndarray, " questions"],
    inputs: Inputs,
    name: str,
) -> FittedGain:
    """Both chances; a tier's own is fitted on the drafts that it shows.

    By the log-probability alone, the largest tier has one chance for all questions: what goes up
    first is then what the tier is least sure of, as with a threshold of confidence.
    """
    is_shown = np.array([draft.is_shown for draft in drafts], dtype=bool)
    weights: dict[str, np.ndarray] = {}
    largest = (
        _constant_chance(largest_right)
        if inputs == "log_prob"
        else _fit_chance(
            drafts, is_right=largest_right, inputs=inputs, name=f"{name}.largest", weights=weights
        )
    )
    own = _fit_chance(
        [draft for draft in drafts if draft.is_shown],
        is_right=own_right[is_shown],
        inputs=inputs,
        name=f"{name}.own",
        weights=weights,
    )
    return FittedGain(Gain(inputs=inputs, largest=largest, own=own), weights)


def _fit_chance(
    drafts: Sequence[Draft],
    *,
    is_right: Bool[np.ndarray, " questions"],
    inputs: Inputs,
    name: str,
    weights: dict[str, np.ndarray],
) -> Chance:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415  (slow to import)

    if is_right.all() or not is_right.any():
        return _constant_chance(is_right)
    figures = np.array([draft_figures(draft) for draft in drafts])
    used = list(FIGURES[inputs])
    mean, scale = figures.mean(axis=0), np.maximum(figures.std(axis=0), 1e-9)
    features = ((figures - mean) / scale)[:, used]
    if inputs in WITH_TEXT:
        features = _add_text(features, [draft.question for draft in drafts])
    found = LogisticRegression(max_iter=1000).fit(features, is_right)
    coefficients = np.zeros(NUM_FIGURES)
    coefficients[used] = found.coef_[0][: len(used)] / scale[used]
    if inputs in WITH_TEXT:
        weights[name] = found.coef_[0][len(used) :].astype(np.float32)
    return Chance(
        bias=float(found.intercept_[0] - coefficients @ mean),
        figures=tuple(map(float, coefficients)),
        text=name if inputs in WITH_TEXT else "",
    )


def _constant_chance(is_right: Bool[np.ndarray, " questions"]) -> Chance:
    """The same for every question; never 0 or 1."""
    odds = (is_right.sum() + 0.5) / ((~is_right).sum() + 0.5)
    return Chance(bias=float(np.log(odds)), figures=(0.0,) * NUM_FIGURES)


def _add_text(features: np.ndarray, questions: Sequence[str]) -> object:
    """The features with the text's buckets beside them, as a sparse matrix."""
    from scipy.sparse import csr_matrix, hstack  # noqa: PLC0415  (slow to import)

    buckets = [text_buckets(question) for question in questions]
    sizes = np.array([len(item) for item in buckets])
    text = csr_matrix(
        (
            np.repeat(1 / np.sqrt(sizes), sizes),
            np.concatenate(buckets),
            np.concatenate([[0], np.cumsum(sizes)]),
        ),
        shape=(len(questions), NUM_BUCKETS),
    )
    return hstack([csr_matrix(features), text]).tocsr()


@dataclass(frozen=True)
class Gains:
    """What the largest tier is expected to gain, by question."""

    after: Float[np.ndarray, "smaller questions"]
    """Over each smaller tier, from the larger to the smallest, by that tier's draft."""
    before: Float[np.ndarray, " questions"]
    """Over the smallest tier, by the question alone."""


@dataclass(frozen=True)
class FittedTiers:
    """All of a router but its rule."""

    after: tuple[FittedGain, ...]
    """Of each smaller tier, from the larger to the smallest."""
    before: FittedGain

    def weights(self) -> Mapping[str, Float[np.ndarray, f" {NUM_BUCKETS}"]]:
        """All weights of texts, by name."""
        return {
            name: weights
            for fitted in (*self.after, self.before)
            for name, weights in fitted.weights.items()
        }

    def compute(self, drafts: TierDrafts) -> Gains:
        """The gains of other questions than it was fitted on."""
        after = [
            [fitted.gain.compute(draft, weights=fitted.weights) for draft in tier]
            for fitted, tier in zip(self.after, drafts.drafts[1:], strict=True)
        ]
        before = [
            self.before.gain.compute(without_answer(draft.question), weights=self.before.weights)
            for draft in drafts.drafts[-1]
        ]
        return Gains(np.array(after).reshape(len(self.after), -1), np.array(before))


def fit_tiers(drafts: TierDrafts, *, seed: int) -> tuple[FittedTiers, Gains]:
    """The gains of all tiers, and those of each question by models that never met it.

    Of the inputs the simplest is taken that is within one standard error of the best, in the mean
    accuracy over all shares of questions that go to the largest tier (Breiman et al. 1984, ch. 3).
    """
    folds = assign_folds(drafts.groups, num_folds=NUM_FOLDS, seed=seed)
    fitted, after = [], []
    for place, tier in enumerate(drafts.drafts[1:], start=1):
        right = {"largest_right": drafts.is_right[0], "own_right": drafts.is_right[place]}
        found: dict[Inputs, np.ndarray] = {
            inputs: _cross_validate(tier, **right, inputs=inputs, folds=folds)
            for inputs in CANDIDATES
        }
        gained = drafts.is_right[0].astype(float) - drafts.is_right[place]
        inputs = choose_inputs(found, gained=gained, groups=drafts.groups)
        fitted.append(fit_gain(tier, **right, inputs=inputs, name=f"tier{place}"))
        after.append(found[inputs])
    unanswered = [without_answer(draft.question) for draft in drafts.drafts[-1]]
    right = {"largest_right": drafts.is_right[0], "own_right": drafts.is_right[-1]}
    before = fit_gain(unanswered, **right, inputs="text", name="before")
    gains = Gains(np.array(after), _cross_validate(unanswered, **right, inputs="text", folds=folds))
    return FittedTiers(tuple(fitted), before), gains


def _cross_validate(
    drafts: Sequence[Draft],
    *,
    largest_right: Bool[np.ndarray, " questions"],
    own_right: Bool[np.ndarray, " questions"],
    inputs: Inputs,
    folds: Int[np.ndarray, " questions"],
) -> Float[np.ndarray, " questions"]:
    """The gain of each question, by a model that was fitted on the other folds."""
    found = np.zeros(len(drafts))
    for fold in range(NUM_FOLDS):
        rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if not len(rest) or not len(held):
            continue
        fitted = fit_gain(
            [drafts[int(place)] for place in rest],
            largest_right=largest_right[rest],
            own_right=own_right[rest],
            inputs=inputs,
            name="fold",
        )
        found[held] = [
            fitted.gain.compute(drafts[int(place)], weights=fitted.weights) for place in held
        ]
    return found


def choose_inputs(
    gains: Mapping[Inputs, Float[np.ndarray, " questions"]],
    *,
    gained: Float[np.ndarray, " questions"],
    groups: Sequence[str],
) -> Inputs:
    """The first whose mean accuracy over all shares is within a standard error of the best.

    `gained` is 1 where only the largest tier is right, -1 where only the smaller one is.
    """
    by_inputs: dict[Inputs, np.ndarray] = {
        inputs: share_of_budgets(values) for inputs, values in gains.items()
    }
    best = max(by_inputs, key=lambda inputs: float(by_inputs[inputs] @ gained))
    for inputs, shares in by_inputs.items():
        lost = clustered_mean(values=(by_inputs[best] - shares) * gained, groups=groups)
        standard_error = (lost.high - lost.low) / 2 / Z_95
        if lost.value <= standard_error:
            return inputs
    return best


def share_of_budgets(gain: Float[np.ndarray, " questions"]) -> Float[np.ndarray, " questions"]:
    """Of all shares of questions that may go up, at how many each one does; ties count alike."""
    _, inverse, counts = np.unique(gain, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts + 1) / 2  # mean rank from 0, the least gain first
    return (ranks[inverse] + 0.5) / len(gain)
