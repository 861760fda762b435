"""What a teacher says of a batch, and what an objective asks of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from limbeck.models.aligned import Aligned
from limbeck.models.attention_capture import Heads
from limbeck.models.batch import Batch


class FullLogits(NamedTuple):
    """The whole distribution at each kept position."""

    logits: Float[Tensor, "kept vocab"]


class TopK(NamedTuple):
    """The likeliest tokens, and the mass of all others."""

    logits: Float[Tensor, "kept top"]
    """Up to a constant per position."""
    ids: Int[Tensor, "kept top"]
    tail: Float[Tensor, " kept"]
    """Log of the summed exp(logit / T) of all other tokens, at the temperature asked for."""


class HiddenAndHead(NamedTuple):
    """The whole distribution as what the head makes it of: logits are `states @ head.T`.

    A large vocabulary's logits need not all be held at once.
    """

    states: Float[Tensor, "kept teacher_hidden"]
    """After the final norm."""
    head: Float[Tensor, "vocab teacher_hidden"]

    def whole(self) -> FullLogits:
        """With all logits made."""
        return FullLogits(self.states @ self.head.T)


class ImportanceSampled(NamedTuple):
    """Tokens drawn by importance: sum of weight * f(token) estimates sum of p * f, unbiased.

    Both p and the estimate are at the temperature asked for (RS-KD, arXiv:2503.16870).
    """

    ids: Int[Tensor, "kept drawn"]
    weights: Float[Tensor, "kept drawn"]
    """0 for places that hold no token."""
    logs: Float[Tensor, "kept drawn"]
    """Log p of each token, at the temperature asked for."""


TeacherDistribution = FullLogits | HiddenAndHead | TopK | ImportanceSampled


Form = Literal["logits", "states", "auto", "text"]
"""A whole distribution as logits or as states and head; `auto` is states from `LARGE_VOCAB` on."""
LARGE_VOCAB = 32_768
"""Tokens from which logits are worth not being held as a whole."""


@dataclass(frozen=True)
class Targets:
    """What a teacher says at each position that carries a loss."""

    said: TeacherDistribution
    hidden: tuple[Float[Tensor, "kept teacher_hidden"], ...] = ()
    """Of the layers asked for."""
    aligned: Aligned | None = None
    """Where the teacher has another tokenizer: `said` is then of its own tokens and positions."""
    heads: tuple[Heads, ...] = ()
    """Of the layers whose attention was asked for."""


@dataclass(frozen=True)
class Needs:
    """What an objective asks of a teacher."""

    temperature: float
    """The lowest at which targets are read."""
    layers: tuple[int, ...] = ()
    """Teacher layers whose hidden states are read, counted from 1."""
    highest: float = 0.0
    """The highest temperature of a schedule; 0 where the temperature stays."""
    form: Form = "logits"
    """How a live teacher gives a whole distribution: as `FullLogits`, or, if it can, as
    `HiddenAndHead`; `text` wants one that reads the records' text with its own tokenizer, as
    `FullLogits` with `aligned`."""


@runtime_checkable
class Teacher(Protocol):
    """Where targets come from: a live model or recorded signals."""

    vocab: int
    """Real tokens, without padding rows."""
    hidden: int

    def __call__(self, batch: Batch) -> Targets:
        """What the teacher says at the batch's kept positions."""
        ...


@runtime_checkable
class FeatureTeacher(Teacher, Protocol):
    """A teacher that is asked for layers once the student is known."""

    known: tuple[int, ...]
    """Layers that it can show, counted from 1, ascending."""

    def ask(self, *, layers: Sequence[int], attended: Sequence[int]) -> None:
        """From now on give the layers' hidden states, and the others' queries, keys and values.

        Raises:
            ArtifactError: it has no such layers, or no attention to show.
        """
        ...
