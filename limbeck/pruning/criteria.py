"""Scores of coupled groups from their weights: the lowest go first, and a zero group scores zero.

A score takes one tensor per part (gate rows, up rows, down columns, ...), the group as its first
axis. Left out: scores from activations or gradients, which need data.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import AfterValidator
from torch import Tensor, nn

from limbeck.contracts.config import resolve
from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.registry import CRITERIA
from limbeck.models.structure import Groups, view_groups

CriterionFunction = Callable[[Sequence[Tensor]], Tensor]


def l1(parts: Sequence[Float[Tensor, "groups _"]]) -> Float[Tensor, " groups"]:
    """Sum of absolute weights, over all parts of a group."""
    return torch.stack([part.float().abs().sum(dim=1) for part in parts]).sum(dim=0)


def group_l2(parts: Sequence[Float[Tensor, "groups _"]]) -> Float[Tensor, " groups"]:
    """Euclidean norm over all parts of a group: the quantity that the group lasso shrinks."""
    return torch.stack([part.float().square().sum(dim=1) for part in parts]).sum(dim=0).sqrt()


def norm_product(parts: Sequence[Float[Tensor, "groups _"]]) -> Float[Tensor, " groups"]:
    """Product of the parts' norms: unchanged when a factor moves from one part to another."""
    return torch.stack([part.float().square().sum(dim=1).sqrt() for part in parts]).prod(dim=0)


def score_groups(
    model: nn.Module, *, groups: Groups, score: CriterionFunction
) -> Float[Tensor, " groups"]:
    """The score of every group of one layer."""
    with torch.no_grad():
        return score(
            [
                view_groups(
                    model.get_parameter(part.parameter), part=part, num_groups=groups.num_groups
                ).flatten(1)
                for part in groups.parts
                if not part.parameter.endswith(".bias")
            ]
        )


def _check_name(name: str) -> str:
    try:
        resolve(CRITERIA, name, what="criterion")
    except UnknownNameError as error:
        raise ValueError(str(error)) from None
    return name


CriterionName = Annotated[str, AfterValidator(_check_name)]
"""The type of a field that names one of `limbeck list criteria`."""
