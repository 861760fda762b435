"""The change of a linear layer's weight by which its outputs come closest to what they should be.

With x what the layer reads, and r what its outputs should have more, the change D has the least

    mean |r - D x|^2 + d mean(x^2) |D|^2,    so    D = R (P + d mean(diag P) I)^-1,

where P = mean(x x^T) and R = mean(r x^T): ridge regression towards the weight as it is.
"""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.models.linear_inputs import MeanProducts


@final
class Regression:
    """Sums over tokens, of one layer or of several that read the same."""

    def __init__(self) -> None:
        self._read = MeanProducts()
        self._cross: Tensor | float = 0.0

    @property
    def num_tokens(self) -> int:
        """How many were taken in."""
        return self._read.num_tokens

    def add(
        self, given: Float[Tensor, "tokens columns"], missing: Float[Tensor, "tokens rows"]
    ) -> None:
        """Take in what was read, and what the outputs should have more."""
        self._read.add(given, missing)
        self._cross = self._cross + (missing.t() @ given).double()

    def solve(self, *, damping_ratio: float) -> Float[Tensor, "rows columns"]:
        """The change of the weight, in float64; not finite where what was taken in is not."""
        assert isinstance(self._cross, Tensor)
        cross = self._cross / self.num_tokens
        return solve_ridge(self._read.mean(), cross, damping_ratio=damping_ratio)


def solve_ridge(
    products: Float[Tensor, "columns columns"],
    cross: Float[Tensor, "rows columns"],
    *,
    damping_ratio: float,
) -> Float[Tensor, "rows columns"]:
    """The change D of the module's docstring; zero where nothing but zeros was read.

    Not finite where the damped products have no Cholesky factor.
    """
    scale = products.diagonal().mean()
    if not scale:
        return torch.zeros_like(cross)
    eye = torch.eye(len(products), dtype=products.dtype, device=products.device)
    factor, fault = torch.linalg.cholesky_ex(products + damping_ratio * scale * eye)
    if fault:
        return torch.full_like(cross, math.nan)
    return torch.cholesky_solve(cross.t(), factor).t()
