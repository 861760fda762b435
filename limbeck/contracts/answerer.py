"""What every runtime offers, so that evaluation and serving need to know none of them."""

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Prompt:
    """A question with the images that it is about."""

    text: str
    images: tuple[Path, ...] = ()


Asking = str | Prompt
"""A bare text is a question without images."""


def as_prompt(asking: Asking) -> Prompt:
    """What is asked, whichever way it was given."""
    return asking if isinstance(asking, Prompt) else Prompt(asking)


@dataclass(frozen=True)
class Answer:
    """A generated answer, and how sure the model was of its tokens."""

    text: str
    num_tokens: int
    confidence_ratio: float
    """Geometric mean of the probabilities of the generated tokens."""


@dataclass(frozen=True)
class Size:
    """How large a model is, by count and by weight."""

    parameters: int
    active_parameters: int
    """Parameters that one token's computation reads."""
    weight_bytes: int
    """Bytes of the weights as stored."""


class Answerer(abc.ABC):
    """A loaded model that answers questions, greedily and so repeatably."""

    @abc.abstractmethod
    def answer(self, questions: Sequence[Asking], *, max_new_tokens: int) -> list[Answer]:
        """One answer for each question, computed as a batch.

        Raises:
            ImageError: an image cannot be read.
            DataError: a question does not fit the model, or has images that it cannot see.
        """

    @abc.abstractmethod
    def stream(self, question: Asking, *, max_new_tokens: int) -> Iterator[tuple[str, float]]:
        """Pieces of one answer as they come, each with its token's probability."""

    @abc.abstractmethod
    def score(self, question: Asking, options: Sequence[str]) -> list[float]:
        """Mean log-probability per token of each option as the answer."""

    @abc.abstractmethod
    def size(self) -> Size:
        """Counts and bytes of the loaded model."""

    @abc.abstractmethod
    def num_threads(self) -> int:
        """CPU threads in use."""
