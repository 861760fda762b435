"""Hidden-state matching: the student's states, projected, drawn toward the teacher's.

Left out: choosing the pairs of layers, which a recipe states.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from limbeck.contracts.config import Config

SEED = 0
"""Of the fresh maps."""


class Matching(Config):
    """One pair of layers, counted from 1; the last layer is after the final norm."""

    student_layer: Annotated[int, Field(ge=1)]
    teacher_layer: Annotated[int, Field(ge=1)]
    weight: Annotated[float, Field(gt=0)] = 1.0


def scaled_mse(
    *, student: Float[Tensor, "kept hidden"], teacher: Float[Tensor, "kept hidden"]
) -> Float[Tensor, ""]:
    """Sum over tokens of the mean squared error against the teacher's state at unit RMS.

    Dividing by the teacher's RMS makes one weight fit every layer and every teacher.
    """
    teacher = teacher.float()
    rms = teacher.square().mean(dim=-1, keepdim=True).clamp(min=1e-12).sqrt()
    return (student.float() - teacher / rms).square().mean(dim=-1).sum()


class Projections(nn.Module):
    """A learned linear map for each pair; training drops it when it ends."""

    def __init__(self, pairs: Sequence[Matching], *, hidden: int, teacher_hidden: int) -> None:
        super().__init__()
        self.weights = [pair.weight for pair in pairs]
        # The same maps whatever was drawn before: a run that was killed starts from no other ones.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.maps = nn.ModuleList(nn.Linear(hidden, teacher_hidden, bias=False) for _ in pairs)

    def forward(
        self,
        student: Sequence[Float[Tensor, "kept hidden"]],
        teacher: Sequence[Float[Tensor, "kept teacher_hidden"]],
    ) -> Float[Tensor, ""]:
        """Weighted sum over pairs and tokens."""
        terms = [
            weight * scaled_mse(student=project(ours), teacher=theirs)
            for weight, project, ours, theirs in zip(
                self.weights, self.maps, student, teacher, strict=True
            )
        ]
        return torch.stack(terms).sum()
