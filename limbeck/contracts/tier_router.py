"""Which tier answers a question: what a larger one is expected to gain, from a smaller one's draft.

`tier_router.json` and `tier_router.safetensors` are read wherever tiers answer; numpy is all that
they need there. How a router is fitted and what is promised of it stands in
`limbeck.evaluation.tier_routing`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, final

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from limbeck.contracts.answer_policy import (
    LEAST_CONFIDENCE_RATIO,
    AnswerPolicy,
    bounded_log,
    sigmoid,
)
from limbeck.contracts.artifacts import write_atomically
from limbeck.contracts.config import Config
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.familiarity import hash_ngrams
from limbeck.contracts.fields import InnerRatio, NonNegativeInt, PositiveRatio, Ratio

ROUTER = "tier_router.json"
WEIGHTS = "tier_router.safetensors"
NUM_BUCKETS = 4096
"""Of the hashes of a question's n-grams."""
NUM_FIGURES = 4
"""Of a draft: see `draft_figures`."""
Inputs = Literal["log_prob", "figures", "figures and text", "text"]
"""What a gain is computed from: `log_prob` of the tier's own chance alone, the others of both
chances; `text` alone where there is no draft yet."""
ALWAYS, NEVER = -2.0, 1.0
"""Least gains: every gain is above the one, none above the other."""


@dataclass(frozen=True)
class Draft:
    """What is known of a tier's answer before it is shown."""

    question: str
    answer: str
    confidence_ratio: float
    """Geometric mean of the probabilities of its tokens."""
    is_shown: bool = True
    """Whether the tier's own calibration lets it pass."""


def without_answer(question: str) -> Draft:
    """What is known before there is a draft."""
    return Draft(question, "", 1.0)


def finds_foreign(smallest: AnswerPolicy, *, largest: AnswerPolicy, question: str) -> bool:
    """Whether a question is foreign to a calibrated tier, and the largest one would answer it.

    One that is not calibrated answers whatever the smaller ones have declined.
    """
    if largest.familiarity is not None:
        return False
    judgement = smallest.judge(question, confidence_ratio=1.0)
    return judgement is not None and not judgement.is_familiar


def draft_figures(draft: Draft) -> Float[np.ndarray, f" {NUM_FIGURES}"]:
    """Log-probability and probability of the tokens, and logarithms of both texts' lengths."""
    ratio = max(draft.confidence_ratio, LEAST_CONFIDENCE_RATIO)
    lengths = (math.log1p(len(draft.question)), math.log1p(len(draft.answer)))
    return np.array([bounded_log(ratio), ratio, *lengths])


def text_buckets(question: str) -> Int[np.ndarray, " ngrams"]:
    """The distinct buckets of the question's n-grams; together they weigh 1 (Euclidean)."""
    return np.unique(np.array(hash_ngrams(question), dtype=np.int64) % NUM_BUCKETS)


class Chance(Config):
    """A logistic regression: the chance that a tier's answer is right and shown."""

    bias: float
    figures: Annotated[tuple[float, ...], Field(min_length=NUM_FIGURES, max_length=NUM_FIGURES)]
    text: str = ""
    """Name of its weights of the text; empty: the text does not count."""

    def logit(
        self,
        figures: Float[np.ndarray, f" {NUM_FIGURES}"],
        buckets: Int[np.ndarray, " ngrams"],
        *,
        weights: Mapping[str, Float[np.ndarray, f" {NUM_BUCKETS}"]],
    ) -> float:
        """The logarithm of the odds."""
        score = self.bias + float(np.dot(self.figures, figures))
        if self.text:
            score += float(weights[self.text][buckets].sum()) / math.sqrt(len(buckets))
        return score


class Gain(Config):
    """How much likelier the largest tier's answer is to be right than a tier's own."""

    inputs: Inputs
    largest: Chance
    own: Chance
    """Of the answers that are shown."""

    def compute(
        self, draft: Draft, *, weights: Mapping[str, Float[np.ndarray, f" {NUM_BUCKETS}"]]
    ) -> float:
        """From -1 to 1; a draft that is not shown is right for nobody."""
        figures, buckets = draft_figures(draft), text_buckets(draft.question)
        largest, own = (
            sigmoid(chance.logit(figures, buckets, weights=weights))
            for chance in (self.largest, self.own)
        )
        return largest - own if draft.is_shown else largest


class RoutedTier(Config):
    """A tier, by the model that it was fitted on."""

    name: str
    content_hash: str
    gain: Gain | None = None
    """None for the largest."""


class EscalationRule(Config):
    """When a question goes up."""

    min_gain: float
    """The next larger tier is asked where the gain is above it."""
    min_gain_before: float
    """The largest is asked at once where the gain by the question alone is above it."""


TO_LARGEST = EscalationRule(min_gain=ALWAYS, min_gain_before=ALWAYS)
"""Every question goes to the largest tier."""


class TestedRule(Config):
    """A rule that was tried."""

    rule: EscalationRule
    largest_ratio: Ratio
    """Share of the fitted questions that go to the largest tier by it."""
    p_value: Ratio | None
    """Of its promise being broken, by the certified questions; None: not tested, as one failed."""


class Promise(Config):
    """What holds of fresh questions like the held-out ones, and how that was found."""

    min_kept_ratio: PositiveRatio
    """Of the largest tier's accuracy, that the routed answers have at least ..."""
    max_error_ratio: InnerRatio
    """... but for so many of the times that a router is made."""
    is_certified: bool = False
    """False: nothing short of asking the largest tier could be shown to keep that much."""
    p_value: Ratio | None = None
    """Of the rule in use, or of the one that came first where none passed."""
    num_fitted: NonNegativeInt
    """Questions that the router was fitted on."""
    num_certified: NonNegativeInt
    """Other questions, that the promise rests on."""
    num_groups: NonNegativeInt
    """Of these; a group counts once."""
    kept_ratio: float | None = None
    """By that rule, measured on them; None where the largest tier answers none right."""
    largest_ratio: Ratio = 1.0
    """By that rule, the share of them that goes to the largest tier."""
    reason: str = ""
    """Why nothing was tested."""

    def describe(self) -> str:
        """In words."""
        wanted = f"{self.min_kept_ratio:.1%} of the largest tier's accuracy"
        if self.reason:
            return f"every question goes to the largest tier: {self.reason}"
        held_out = f"{self.num_certified} questions in {self.num_groups} groups"
        kept = "" if self.kept_ratio is None else f"; measured {self.kept_ratio:.1%}"
        if self.is_certified:
            return (
                f"{wanted} kept, {self.largest_ratio:.1%} of the questions answered by it "
                f"(by {held_out}, p = {self.p_value:.3f}{kept})"
            )
        return (
            f"every question goes to the largest tier: on {held_out}, no rule could be shown to "
            f"keep {wanted} (the likeliest has p = {self.p_value:.3f}, at most "
            f"{self.max_error_ratio} was allowed{kept}); hold more out with "
            "splits.validation_ratio, or promise less with min_kept_ratio"
        )


class TierRouterFile(Config):
    """The content of `tier_router.json`."""

    tiers: Annotated[tuple[RoutedTier, ...], Field(min_length=2)]
    """From the largest to the smallest."""
    before: Gain | None = None
    """Of the smallest tier, from the question alone; None where nothing could be fitted."""
    rule: EscalationRule = TO_LARGEST
    promise: Promise
    tested: tuple[TestedRule, ...] = ()
    """In the order in which they were tested."""


@final
class TierRouter:
    """A router that can be asked."""

    def __init__(
        self,
        file: TierRouterFile,
        weights: Mapping[str, Float[np.ndarray, f" {NUM_BUCKETS}"]],
    ) -> None:
        self.file = file
        self._weights = weights
        self._gains = {tier.content_hash: tier.gain for tier in file.tiers}

    def knows(self, content_hashes: Sequence[str]) -> bool:
        """Whether these models, from the largest to the smallest, are those it was fitted on."""
        return list(content_hashes) == [tier.content_hash for tier in self.file.tiers]

    def gain_before(self, question: str) -> float:
        """What the largest tier gains over the smallest, before either has answered."""
        assert self.file.before is not None, "nothing was fitted"
        return self.file.before.compute(without_answer(question), weights=self._weights)

    def gain(self, content_hash: str, draft: Draft) -> float:
        """What the largest tier gains over the tier that wrote a draft: from -1 to 1."""
        found = self._gains[content_hash]
        assert found is not None, "the largest tier's own draft"
        return found.compute(draft, weights=self._weights)

    def passes_over(self, question: str) -> bool:
        """Whether the largest tier answers at once."""
        is_certain = self.file.rule == TO_LARGEST
        return is_certain or self.gain_before(question) > self.file.rule.min_gain_before

    def goes_up(self, content_hash: str, draft: Draft) -> bool:
        """Whether the next larger tier is asked, after a tier's draft."""
        is_certain = self.file.rule == TO_LARGEST
        return is_certain or self.gain(content_hash, draft) > self.file.rule.min_gain

    def write(self, folder: Path) -> None:
        """Write both files."""
        save_file(
            {name: np.ascontiguousarray(x) for name, x in self._weights.items()}, folder / WEIGHTS
        )
        write_atomically(folder / ROUTER, self.file.model_dump_json(indent=2) + "\n")


def read_router(folder: Path) -> TierRouter:
    """The router in a folder.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        file = TierRouterFile.model_validate_json((folder / ROUTER).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(
            f"{folder}: no router, or a damaged one ({error}); make it again"
        ) from None
    gains = [file.before, *(tier.gain for tier in file.tiers)]
    names = {chance.text for gain in gains if gain for chance in (gain.largest, gain.own)} - {""}
    if any(name not in weights or weights[name].shape != (NUM_BUCKETS,) for name in names):
        raise ArtifactError(f"{folder / WEIGHTS}: other weights than {ROUTER} names; make it again")
    return TierRouter(file, weights)
