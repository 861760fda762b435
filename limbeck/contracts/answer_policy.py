"""What goes with a model's answers: what it warns of, and when it says that it does not know.

`answer_policy.json` lies in a checkpoint or a bundle, next to the n-grams of its training
questions. A model that has none answers everything.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from limbeck.contracts.artifacts import write_atomically
from limbeck.contracts.config import Config
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.familiarity import Familiarity
from limbeck.contracts.fields import NonNegativeInt, Ratio, Text
from limbeck.contracts.safety_rules import SafetyRules

POLICY = "answer_policy.json"
UNKNOWN_ANSWERS = ("不知道", "I do not know", "I don't know")
"""What a model that does not know may have learnt to say."""
LEAST_CONFIDENCE_RATIO = 1e-6
"""Of the tokens of an answer; a model that gives them less is no surer of being wrong."""


def bounded_log(confidence_ratio: float) -> float:
    """The logarithm that a calibration reads, of no less than `LEAST_CONFIDENCE_RATIO`."""
    return math.log(max(confidence_ratio, LEAST_CONFIDENCE_RATIO))


def sigmoid(score: float) -> float:
    """The probability that a logistic regression's score stands for."""
    return 1 / (1 + math.exp(-max(-500.0, min(500.0, score))))


def _check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    return text


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_check_pattern)]


class Emergency(Config):
    """A question that asks for help at once, whatever the model answers."""

    all_of: Annotated[tuple[Pattern, ...], Field(min_length=1)]
    """Regular expressions; a question is one where each of them is found, whatever the case."""
    zh: Text
    en: Text
    """What is said before the answer, in two languages."""

    def matches(self, question: str) -> bool:
        """Whether a question holds all the signs."""
        return all(re.search(pattern, question, re.IGNORECASE) for pattern in self.all_of)


class Confidence(Config):
    """A logistic regression: whether a draft is right, from its tokens and from its question.

    Fitted on the model's drafts of validation questions and of questions of other domains and
    languages, the two classes weighed alike.
    """

    bias: float
    log_prob_weight: float
    """Of the logarithm of the geometric mean of the draft's token probabilities."""
    familiarity_weight: float
    """Of the share of the question's n-grams that training questions hold."""
    unseen_ngrams: NonNegativeInt
    """Added to the n-grams of every question: the shorter it is, the less it proves."""
    min_confidence_ratio: Ratio
    """Below it the answer is that the model does not know."""
    min_familiarity_ratio: Ratio
    """A question less familiar than this is not answered, however sure the model is."""
    basis: Literal["right answers", "questions"]
    """What the model's domain was taken to be: its right answers to validation questions, or, where
    too few could be judged right, the questions themselves."""
    num_held_out: NonNegativeInt
    num_right: NonNegativeInt
    num_foreign: NonNegativeInt
    home_topics: tuple[str, ...] = ()
    """Topics that belong to the domain: foreign questions about them were left out."""
    declined_right_ratio: Ratio
    """Share of the right answers (or questions, see `basis`) that it was fitted on and declines."""
    declined_right_upper_ratio: Ratio = 1.0
    """The largest share of all such answers that it declines, at a certainty of 95 %."""
    declined_foreign_ratio: Ratio
    """Share of the foreign questions that it was fitted on and declines."""
    declined_foreign_lower_ratio: Ratio = 0.0
    """The smallest share of all such questions that it declines, at a certainty of 95 %."""

    def ratio(self, *, familiarity: float, confidence_ratio: float) -> float:
        """How sure a draft is, between 0 and 1."""
        log_prob = bounded_log(confidence_ratio)
        score = self.bias + self.log_prob_weight * log_prob + self.familiarity_weight * familiarity
        return sigmoid(score)


class PolicyFile(Config):
    """The content of `answer_policy.json`."""

    disclaimer: Mapping[str, str] = {}
    """Printed with every answer, in both languages: what the domain's pack has for it."""
    emergencies: tuple[Emergency, ...] = ()
    safety: SafetyRules = SafetyRules()
    """What the domain's pack has; policies made before it have none."""
    confidence: Confidence | Literal["not calibrated"] = "not calibrated"
    reason: str = ""
    """Why it is not calibrated."""


@dataclass(frozen=True)
class Judgement:
    """How sure a model is of a draft, and how well it knows such questions."""

    confidence_ratio: float
    min_confidence_ratio: float
    familiarity_ratio: float
    min_familiarity_ratio: float

    @property
    def is_familiar(self) -> bool:
        """Whether the question is of the kind that the model was trained on."""
        return self.familiarity_ratio >= self.min_familiarity_ratio

    @property
    def is_sure(self) -> bool:
        """Whether the draft is to be shown."""
        return self.is_familiar and self.confidence_ratio >= self.min_confidence_ratio


@dataclass(frozen=True)
class AnswerPolicy:
    """A model's policy, ready to judge."""

    file: PolicyFile = field(default_factory=PolicyFile)
    familiarity: Familiarity | None = None
    """There where the confidence is calibrated."""

    def find_emergencies(self, question: str) -> tuple[Emergency, ...]:
        """Those that the question shows signs of."""
        return tuple(item for item in self.file.emergencies if item.matches(question))

    def judge(self, question: str, *, confidence_ratio: float) -> Judgement | None:
        """How sure the model is of a draft, from its tokens' probability; None: not calibrated."""
        confidence = self.file.confidence
        if confidence == "not calibrated" or self.familiarity is None:
            return None
        familiarity = self.familiarity.ratio(question, unseen_ngrams=confidence.unseen_ngrams)
        return Judgement(
            confidence.ratio(familiarity=familiarity, confidence_ratio=confidence_ratio),
            confidence.min_confidence_ratio,
            familiarity,
            confidence.min_familiarity_ratio,
        )

    def metrics(self) -> dict[str, object]:
        """What a manifest says of the calibration."""
        confidence = self.file.confidence
        if confidence == "not calibrated":
            return {"calibration": self.file.reason or confidence}
        return {"calibration": confidence.model_dump()}

    def write(self, folder: Path) -> None:
        """Write the policy into a model's folder."""
        if self.familiarity is not None:
            self.familiarity.write(folder)
        write_atomically(folder / POLICY, self.file.model_dump_json(indent=2) + "\n")


def read_policy(folder: Path) -> AnswerPolicy:
    """The policy in a checkpoint or bundle; where there is none, one that declines nothing.

    Raises:
        CheckpointError: a file of it is damaged.
    """
    path = folder / POLICY
    if not path.is_file():
        return AnswerPolicy()
    try:
        file = PolicyFile.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}); make the model again") from None
    calibrated = file.confidence != "not calibrated"
    return AnswerPolicy(file, Familiarity.read(folder) if calibrated else None)


def repeats(text: str) -> bool:
    """Whether a text ends in the same few characters over and over, as a lost model writes.

    Rules and blanks are no sign of it, unless a long text holds nothing else: no letter, no digit.
    """
    if len(text) < MIN_REPEATED_CHARS:
        return False
    for size, count in REPEATED:
        tail = text[-size:]
        if len(text) >= size * count and text.endswith(tail * count):
            only_signs = len(text) >= MIN_MARK_CHARS and not any(map(str.isalnum, text))
            return only_signs or any(map(str.isalnum, tail))
    return False


MIN_MARK_CHARS = 200
"""A text of signs alone may be a rule up to this length."""
MIN_REPEATED_CHARS = 40
REPEATED: Sequence[tuple[int, int]] = tuple(
    (size, max(4, -(-MIN_REPEATED_CHARS // size))) for size in range(1, 41)
)
"""Characters of a repeated piece, and how often it is repeated: at least 4 times, 40 characters."""
