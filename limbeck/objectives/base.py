"""The seam of every objective: its Config, what it is built from, and the loss that it returns.

Left out: the training loop, which alone divides sums by counts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.models.batch import Batch
from limbeck.models.forward import Kept

Forward = Callable[..., Kept]


@dataclass(frozen=True)
class Loss:
    """A sum over kept tokens, and the number of tokens it is to be divided by."""

    sum: Float[Tensor, ""]
    count: int
    parts: dict[str, float] = field(default_factory=dict)
    """Sums of the single terms, for the training curve."""


class Objective(nn.Module):
    """Base of every objective; it may hold parameters that training updates and then drops."""

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of one micro-batch."""
        raise NotImplementedError

    def before_step(self, *, progress: float) -> None:
        """Hear how much of the training is done, from 0 to 1, once an optimizer step."""

    def after_step(self, *, model: nn.Module) -> None:
        """What is to be done once an optimizer step; nothing by default."""


class Experience(NamedTuple):
    """What is known of the sampled tokens of a batch, in the order of its kept positions."""

    old_logs: Float[Tensor, " kept"]
    """Log-probability under the policy that sampled the token."""
    reference_logs: Float[Tensor, " kept"]
    advantages: Float[Tensor, " kept"]
    """Of the token's answer."""


@runtime_checkable
class ExperienceBuffer(Protocol):
    """Where the experience of a batch is kept."""

    def __call__(self, batch: Batch) -> Experience:
        """What is known of the batch's kept tokens."""
        ...


@dataclass(frozen=True)
class ObjectiveContext:
    """What an objective is built from; a part that its Config does not need may be left out."""

    model: PreTrainedModel
    """The model in training."""
    teacher: object = None
    """What distillation learns from, a `distillation.teachers.base.Teacher`: this layer is below it
    and only passes it on."""
    reference: nn.Module | None = None
    """The forward pass of the frozen model that training started from."""
    experience: ExperienceBuffer | None = None
    """Where the samples of a batch are found."""
