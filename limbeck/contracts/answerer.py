"""What every runtime offers, so that evaluation and serving depend on none of them."""

import abc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

from limbeck.contracts.errors import DataError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


def alternate(turns: Sequence[str], *, system: str = "") -> tuple[Message, ...]:
    """Turns of user and assistant, the user's first; before them the system's, if there is any."""
    messages = [
        Message("assistant" if index % 2 else "user", turn) for index, turn in enumerate(turns)
    ]
    return (Message("system", system), *messages) if system else tuple(messages)


@dataclass(frozen=True)
class Prompt:
    """A conversation that the assistant is to continue, with the images that it is about.

    Raises:
        DataError: the last message is not the user's.
    """

    messages: tuple[Message, ...]
    images: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1].role != "user":
            raise DataError(
                f"a prompt of {len(self.messages)} messages: expected at least one, the last of "
                "role 'user'"
            )

    @property
    def question(self) -> str:
        """The last message's content."""
        return self.messages[-1].content


PromptLike = str | Sequence[Message] | Prompt
"""A bare text is one message of the user."""


def as_prompt(value: PromptLike, *, images: Sequence[Path] = ()) -> Prompt:
    """The prompt that a text or messages stand for; a `Prompt` stays as it is."""
    if isinstance(value, Prompt):
        return value
    messages = (Message("user", value),) if isinstance(value, str) else tuple(value)
    return Prompt(messages, tuple(images))


def geometric_mean(log_probs: Sequence[float]) -> float:
    """The geometric mean of probabilities, from their logarithms; 0 of none."""
    return math.exp(min(sum(log_probs) / len(log_probs), 0.0)) if log_probs else 0.0


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
    """A loaded model that answers questions: with its likeliest tokens, or with drawn ones."""

    @abc.abstractmethod
    def answer(self, prompts: Sequence[PromptLike], *, max_new_tokens: int) -> list[Answer]:
        """One answer for each prompt, in their order, of the likeliest tokens.

        Raises:
            ImageError: an image cannot be read.
            DataError: a prompt does not fit the model, or has images that it cannot read.
        """

    @abc.abstractmethod
    def sample(
        self,
        prompts: Sequence[PromptLike],
        *,
        seeds: Sequence[int],
        temperature: float,
        max_new_tokens: int,
    ) -> list[Answer]:
        """One answer for each prompt, in their order, of tokens drawn from its seed.

        The draws of an answer depend on its seed alone, not on the other prompts. Confidences are
        those of `answer`: of the model's distribution at temperature 1.

        Raises:
            ImageError, DataError: as `answer`.
        """

    @abc.abstractmethod
    def stream(self, prompt: PromptLike, *, max_new_tokens: int) -> Iterator[tuple[str, float]]:
        """Pieces of one answer as they come, each with its token's log-probability."""

    @abc.abstractmethod
    def score(self, prompt: PromptLike, options: Sequence[str]) -> list[float]:
        """Mean log-probability per token of each option as the answer."""

    @abc.abstractmethod
    def count_answer_tokens(self, answer: str) -> int:
        """Tokens that `score` takes the mean over, where this is the option."""

    @abc.abstractmethod
    def size(self) -> Size:
        """Counts and bytes of the loaded model."""

    @abc.abstractmethod
    def num_threads(self) -> int:
        """CPU threads in use."""


Found = TypeVar("Found")


@runtime_checkable
class Apply(Protocol):
    """Gives an open model to a function: here, or in another process that the function goes to."""

    def __call__(self, function: Callable[[Answerer], Found]) -> Found:
        """What the function gives back."""
        ...


def apply_here(answerer: Answerer) -> Apply:
    """Functions run in this process."""

    def apply(function: Callable[[Answerer], Found]) -> Found:
        return function(answerer)

    return apply
