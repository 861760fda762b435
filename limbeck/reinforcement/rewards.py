"""Rewards that a rule can verify: each rates one sampled answer from 0 to 1.

No reward needs a written answer in a person's words, only what the pack or the record holds.
"""

import abc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

from typing_extensions import override

from limbeck.contracts.config import resolve
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import AnswerFormat
from limbeck.contracts.registry import REWARDS

OTHER_SEPARATORS = ",，;；/\n"


def name_domain_rewards(weights: Iterable[str]) -> str:
    """Those of some rewards that need a pack, as a message names them; empty: none of them."""
    named = [repr(name) for name in sorted(weights) if find_reward(name).needs_domain]
    return f"reward {' and '.join(named)}" if named else ""


def check_domain(answer_format: AnswerFormat, *, weights: Iterable[str], path: Path) -> None:
    """Refuses rewards that need a pack for a corpus that has none.

    Raises:
        DataError: it has none.
    """
    if (need := name_domain_rewards(weights)) and not answer_format.joiner:
        message = f"{need} needs the domain of a pack, and the corpus has none"
        raise DataError(
            f"{message}; leave it out, or set `pack` and make the corpus again", path=path
        )


@dataclass(frozen=True)
class AnswerSample:
    """One sampled answer beside the one that the pack holds."""

    text: str
    ended: bool
    """Whether the model ended it, rather than the limit of its tokens."""
    expected: str
    agreement_ratio: float
    """Entity F1 of the text with the expected answer."""


class Reward(abc.ABC):
    """How one thing about a sampled answer is rated."""

    needs_domain: ClassVar[bool] = False
    """Whether it compares with how a pack joins items and admits what it does not know."""

    @abc.abstractmethod
    def rate(self, sample: AnswerSample, *, answer_format: AnswerFormat) -> float:
        """From 0 to 1."""


@final
class Facts(Reward):
    """Entity F1 with the expected answer."""

    @override
    def rate(self, sample: AnswerSample, *, answer_format: AnswerFormat) -> float:
        return sample.agreement_ratio


@final
class Form(Reward):
    """One for an answer that ends, joins its items as the pack does and repeats none."""

    needs_domain: ClassVar[bool] = True

    @override
    def rate(self, sample: AnswerSample, *, answer_format: AnswerFormat) -> float:
        wrong = [
            char for char in OTHER_SEPARATORS if char in sample.text and char not in sample.expected
        ]
        items = sample.text.split(answer_format.joiner)
        repeats = len(set(items)) < len(items)
        return float(sample.ended and all(items) and not wrong and not repeats)


@final
class Refusal(Reward):
    """One where the answer is the pack's unknown answer exactly when that is expected."""

    needs_domain: ClassVar[bool] = True

    @override
    def rate(self, sample: AnswerSample, *, answer_format: AnswerFormat) -> float:
        return float(
            is_unknown_answer(sample.text, answer_format)
            == is_unknown_answer(sample.expected, answer_format)
        )


@final
class Brevity(Reward):
    """One up to the expected number of characters, then in inverse proportion; zero for nothing."""

    @override
    def rate(self, sample: AnswerSample, *, answer_format: AnswerFormat) -> float:
        return min(1.0, len(sample.expected) / len(sample.text)) if sample.text else 0.0


def find_reward(name: str) -> Reward:
    """The reward that the table names.

    Raises:
        UnknownNameError: there is none of this name.
    """
    reward: type[Reward] = resolve(REWARDS, name, what="reward")
    return reward()


def is_unknown_answer(text: str, answer_format: AnswerFormat) -> bool:
    """Whether a text is the pack's unknown answer, punctuation aside."""
    return _letters(text) == _letters(answer_format.unknown_answer)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def score(
    sample: AnswerSample, *, answer_format: AnswerFormat, weights: Mapping[str, float]
) -> dict[str, float]:
    """Every weighted reward by its name, unweighted, and `reward`, their weighted sum."""
    found = {
        name: find_reward(name).rate(sample, answer_format=answer_format)
        for name in sorted(weights)
    }
    return {"reward": sum(weights[name] * value for name, value in found.items()), **found}
