"""What a teacher says of a batch, and what an objective asks of it.

Left out: where it comes from (`limbeck.data.signals`) and what it costs to differ from it
(`limbeck.objectives`).
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from limbeck.models.batch import Batch


class Whole(NamedTuple):
    """The whole distribution at each kept position."""

    logits: Float[Tensor, "kept vocab"]


class Top(NamedTuple):
    """The likeliest tokens, and the mass of all others."""

    logits: Float[Tensor, "kept top"]
    """Up to a constant per position."""
    ids: Int[Tensor, "kept top"]
    tail: Float[Tensor, " kept"]
    """Log of the summed exp(logit / T) of all other tokens, at the temperature asked for."""


Said = Whole | Top


@dataclass(frozen=True)
class Targets:
    """What a teacher says at each position that carries a loss."""

    said: Said
    hidden: tuple[Float[Tensor, "kept teacher_hidden"], ...] = ()
    """Of the layers asked for."""


@dataclass(frozen=True)
class Needs:
    """What an objective asks of a teacher."""

    temperature: float
    layers: tuple[int, ...] = ()
    """Teacher layers whose hidden states are read, counted from 1."""


@runtime_checkable
class Teacher(Protocol):
    """Where targets come from: a live model or recorded signals."""

    vocab: int
    """Real tokens, without padding rows."""
    hidden: int

    def __call__(self, batch: Batch) -> Targets:
        """What the teacher says at the batch's kept positions."""
        ...
