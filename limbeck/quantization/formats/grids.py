"""Grids on which the codes of a block may be chosen freely: steps, levels, and what fixes the step.

A format derives a block's step from the block's numbers. Where codes are chosen otherwise than by
the nearest, the numbers that they stand for must lead to the same step again.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Grids:
    """The grids that one block of each row may lie on: whole numbers of a step."""

    steps: Float[Tensor, "candidates rows"]
    lowest: int
    highest: int
    """Of the whole numbers."""
    anchors: Int[Tensor, " rows"]
    """The column that has to become `lowest`, from which the format finds the step again; -1 where
    any codes lead to the same step."""
