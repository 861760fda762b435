"""The shape of every objective and of its result.

Left out: the training loop, which alone divides sums by counts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from limbeck.contracts.errors import TrainingError
from limbeck.models.batch import Batch
from limbeck.models.forward import Kept
from limbeck.models.targets import Targets

Forward = Callable[..., Kept]
BatchKind = Literal["records", "pairs", "rollouts"]
"""What an objective learns from: records, pairs of answers, or answers that the model samples."""
PACKED = frozenset({"next_token", "soft_target"})
"""Objectives that judge each token by itself, so that a row may hold several records."""


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


def check_targets(total: float, *, targets: Targets, batch: Batch) -> None:
    """Refuse a teacher whose numbers are no numbers, where they have spoilt a loss.

    A student's own end in the loop's error, which speaks of the learning rate.

    Raises:
        TrainingError: a tensor of the targets is not finite.
    """
    if math.isfinite(total):
        return
    tensors = dict(zip(targets.said._fields, targets.said, strict=True))
    tensors |= {f"hidden {place}": item for place, item in enumerate(targets.hidden, start=1)}
    for name, tensor in tensors.items():
        wrong = ~torch.isfinite(tensor)
        if wrong.any():
            raise TrainingError(
                f"the teacher's {name!r} hold {int(wrong.sum())} of {wrong.numel()} values that "
                f"are not finite, the first {float(tensor[wrong][0])!r}, in the batch of records "
                f"{batch.rows.tolist()[:8]}: check the teacher's weights and its precision, or "
                "record its signals again"
            )


def check_start(objective: Any, model: Any) -> None:
    """Refuse an objective that goes on from a trained model where a fresh one is described.

    Raises:
        ValueError: it asks a teacher, or its start, which is its reference too, is fresh.
    """
    if objective.draws == "records":
        check_teacher(objective, "")
    elif not isinstance(model, str):
        raise ValueError(
            f"objective {objective.kind!r} measures every answer against the model that it starts "
            "from, and a fresh one has nothing to say: fine-tune first, and name that checkpoint "
            "in `model`"
        )


def check_packing(objective: Any, packing: str) -> None:
    """Refuse packed rows where an objective may take a row for a record.

    Raises:
        ValueError: it is not known to judge each token by itself.
    """
    if packing != "none" and objective.kind not in PACKED:
        raise ValueError(
            f"batching.packing {packing!r}: objective {objective.kind!r} reads one record a row, "
            f"only {sorted(PACKED)} read packed ones; set packing: none"
        )


def check_teacher(objective: Any, teacher: str) -> None:
    """Refuse an objective that lacks its teacher, and a teacher that nobody would ask.

    Raises:
        ValueError: the objective and the recipe entry disagree.
    """
    if objective.draws != "records":
        raise ValueError(
            f"objective {objective.kind!r} learns from {objective.draws}, which only the stage "
            "`train` makes; use `next_token` or `soft_target` here"
        )
    wanted = objective.needs() is not None
    if wanted and not teacher:
        raise ValueError(f"objective {objective.kind!r} needs a `teacher`: name one")
    if teacher and not wanted:
        raise ValueError(
            f"objective {objective.kind!r} asks no teacher, yet `teacher: {teacher}` is given; "
            "remove it or use `soft_target`"
        )
