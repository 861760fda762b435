"""Codes of one linear layer by GPTQ: what rounding a column loses, columns after it make up for.

Frantar et al. 2022 (arXiv:2210.17323), algorithm 1: for the squared error of the layer's outputs
sum |W x - Q x|^2 with H = mean(x x^T), and U the upper Cholesky factor of the inverse of H,

    e_j = (w_j - q_j) / U_jj,    w_k -= e_j U_jk    for all columns k after j.

The sum of e_j^2 is what a block adds to that error, so of the steps that a format may give a block,
each row takes the one by which it adds least. Blocks come in the order of how much they are used,
and their columns likewise, so that the most used ones are rounded first (act-order), and every
block stays where it is. Left out: where H is measured (`models/linear_inputs`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.formats.grids import Grids


@dataclass(frozen=True)
class Rounded:
    """A weight on its format's grid, and what rounding adds to the layer's squared error."""

    weight: Float[Tensor, "rows columns"]
    """Dequantized codes; the format rounds them to the same codes."""
    error: float
    nearest_error: float
    """Of the nearest codes."""


@torch.no_grad()
def choose_codes(
    weight: Float[Tensor, "rows columns"],
    *,
    hessian: Float[Tensor, "columns columns"],
    number_format: QuantizedFormat,
    damping_ratio: float,
) -> Rounded:
    """The weight with the codes that GPTQ chooses, each row no worse than with the nearest.

    `hessian` is the mean of x x^T over inputs x. `damping_ratio` of the mean of its diagonal is
    added to that; columns that no input uses get their nearest codes.
    """
    block = number_format.block
    assert block is not None and number_format.keeps_grid
    weight = weight.detach().float()
    nearest = number_format.fake(weight)
    if not hessian.diagonal().any():
        return Rounded(nearest, 0.0, 0.0)
    columns = weight.shape[1]
    padding = -columns % block
    padded = functional.pad(hessian.double(), (0, padding, 0, padding))
    order = order_columns(padded.diagonal(), block=block)
    factor = factor_inverse(padded[order][:, order], damping_ratio=damping_ratio).float()
    chosen = torch.empty_like(functional.pad(weight, (0, padding)))
    chosen[:, order] = _sweep(
        functional.pad(weight, (0, padding))[:, order], factor=factor, number_format=number_format
    )
    chosen = chosen[:, :columns]
    errors, nearest_errors = (
        _measure(item - weight, hessian=hessian) for item in (chosen, nearest)
    )
    # A block of all but zeros may lead to another step.
    is_kept = (number_format.fake(chosen) == chosen).all(dim=1)
    is_better = is_kept & (errors < nearest_errors)
    chosen = torch.where(is_better[:, None], chosen, nearest)
    error = torch.where(is_better, errors, nearest_errors).sum()
    return Rounded(chosen, float(error), float(nearest_errors.sum()))


def order_columns(used: Float[Tensor, " columns"], *, block: int) -> Int[Tensor, " columns"]:
    """Columns by how much they are used, most first: blocks by their sums, then those of each.

    Columns of a block stay together, as group-aware reordering has it (Gafni et al. 2025,
    arXiv:2505.14638).
    """
    blocks = used.view(-1, block)
    within = blocks.argsort(dim=1, descending=True, stable=True)
    columns = within + torch.arange(0, used.numel(), block, device=used.device)[:, None]
    return columns[blocks.sum(dim=1).argsort(descending=True, stable=True)].flatten()


def factor_inverse(
    hessian: Float[Tensor, "columns columns"], *, damping_ratio: float
) -> Float[Tensor, "columns columns"]:
    """U, upper triangular, with U^T U the inverse of the damped matrix."""
    used = hessian.diagonal()
    damping = damping_ratio * used[used > 0].mean()
    damped = hessian + damping * torch.eye(len(hessian), dtype=hessian.dtype, device=used.device)
    # Cholesky of the matrix in reverse order is R R^T = H with R upper, so that U = R^-1: the
    # inverse itself is never needed.
    upper = torch.linalg.cholesky(damped.flip(0, 1)).flip(0, 1)
    identity = torch.eye(len(hessian), dtype=hessian.dtype, device=used.device)
    return torch.linalg.solve_triangular(upper, identity, upper=True)


def _sweep(
    weight: Float[Tensor, "rows columns"],
    *,
    factor: Float[Tensor, "columns columns"],
    number_format: QuantizedFormat,
) -> Float[Tensor, "rows columns"]:
    """Round block after block; changes the weight."""
    block = number_format.block
    assert block is not None
    for start in range(0, weight.shape[1], block):
        part = slice(start, start + block)
        grids = number_format.find_grids(weight[:, part])
        rounded, errors = _round_block(weight[:, part], factor=factor[part, part], grids=grids)
        weight[:, part] = rounded
        weight[:, part.stop :] -= errors @ factor[part, part.stop :]
    return weight


def _round_block(
    weight: Float[Tensor, "rows block"], *, factor: Float[Tensor, "block block"], grids: Grids
) -> tuple[Float[Tensor, "rows block"], Float[Tensor, "rows block"]]:
    """Of all grids each row's best: its numbers, and what columns after the block make up for."""
    num_candidates = len(grids.steps)
    left = weight.expand(num_candidates, -1, -1).clone()
    errors, rounded = torch.empty_like(left), torch.empty_like(left)
    for column in range(weight.shape[1]):
        codes = torch.round(left[..., column] / grids.steps).clamp_(grids.lowest, grids.highest)
        codes = torch.where(grids.anchors == column, grids.lowest, codes)
        rounded[..., column] = codes * grids.steps
        error = (left[..., column] - rounded[..., column]) / factor[column, column]
        errors[..., column] = error
        left[..., column + 1 :] -= error[..., None] * factor[column, column + 1 :]
    best = errors.square().sum(dim=-1).argmin(dim=0)
    rows = torch.arange(len(weight), device=weight.device)
    return rounded[best, rows], errors[best, rows]


def _measure(
    difference: Float[Tensor, "rows columns"], *, hessian: Float[Tensor, "columns columns"]
) -> Float[Tensor, " rows"]:
    """The mean squared error of each output."""
    return ((difference @ hessian.float()) * difference).sum(dim=1)
