"""Blocks of weights as -1, 0 and 1 times a scale, found two ways.

Scales are rounded to float16 before anything is rounded to them, so that the stored numbers are
those of llama.cpp's TQ2_0 and TQ1_0. Left out: how codes are packed, which is `low_bits`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from limbeck.quantization.formats.block_rounding import split_blocks
from limbeck.quantization.formats.grids import Grids
from limbeck.quantization.formats.low_bits import as_half, pack
from limbeck.quantization.formats.tensors import QuantizedTensor

STEPS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
"""Parts of the step of least squared error on which codes may be chosen."""
NUM_REFINEMENTS = 4
"""After which the squared error of normally distributed weights no longer falls by a hundredth."""


def quantize_absmean(
    weight: Float[Tensor, "*rows columns"], *, block: int, bits: int
) -> QuantizedTensor:
    """BitNet b1.58's: the scale is the mean magnitude of a block, codes are the nearest to it.

    round(w / s) cut off at -1 and 1 (Ma et al. 2024, arXiv:2402.17764, eq. 1 to 3).
    """
    blocks = split_blocks(weight.detach(), block=block)
    scale = _absmean(blocks, _find_real(blocks, columns=weight.shape[-1]))
    return _store(_round(blocks, scale), scale, bits=bits, columns=weight.shape[-1])


def quantize_least_squares(
    weight: Float[Tensor, "*rows columns"], *, block: int, bits: int
) -> QuantizedTensor:
    """Codes and scale take turns, from the mean magnitude on: each is the best for the other.

    Lloyd's algorithm (1982, doi:10.1109/TIT.1982.1056489) for levels -s, 0 and s, whose aim is
    that of ternary weight networks (Li et al. 2016, arXiv:1605.04711). Numbers that are ternary
    already are kept.
    """
    blocks = split_blocks(weight.detach(), block=block)
    scale = _refine(blocks, _absmean(blocks, _find_real(blocks, columns=weight.shape[-1])))
    return _store(_round(blocks, scale), scale, bits=bits, columns=weight.shape[-1])


def _refine(
    blocks: Float[Tensor, "*rows blocks block"], scale: Float[Tensor, "*rows blocks 1"]
) -> Float[Tensor, "*rows blocks 1"]:
    """The scale after both took turns."""
    codes = _round(blocks, scale)
    for _ in range(NUM_REFINEMENTS):
        num_used = codes.abs().sum(dim=-1, keepdim=True).clamp_min(1)
        scale = as_half((blocks * codes).sum(dim=-1, keepdim=True) / num_used)
        codes = _round(blocks, scale)
    return scale


def find_grids(block: Float[Tensor, "rows columns"]) -> Grids:
    """Some about the step of least squared error, which any ternary numbers lead to again."""
    blocks = block[:, None]
    scale = _refine(blocks, as_half(blocks.abs().mean(dim=-1, keepdim=True))).view(-1)
    steps = torch.stack([as_half(scale * part) for part in STEPS])
    return Grids(steps, -1, 1, torch.full_like(scale, -1, dtype=torch.int64))


def _find_real(
    blocks: Float[Tensor, "*rows blocks block"], *, columns: int
) -> Bool[Tensor, "blocks block"]:
    """Which numbers of a row are its own, and none that fill its last block up."""
    num_blocks, block = blocks.shape[-2:]
    return torch.arange(num_blocks * block, device=blocks.device).view(num_blocks, block) < columns


def _absmean(
    blocks: Float[Tensor, "*rows blocks block"], is_real: Bool[Tensor, "blocks block"]
) -> Float[Tensor, "*rows blocks 1"]:
    total = blocks.abs().sum(dim=-1, keepdim=True)
    return as_half(total / is_real.sum(dim=-1, keepdim=True))


def _round(
    blocks: Float[Tensor, "*rows blocks block"], scale: Float[Tensor, "*rows blocks 1"]
) -> Float[Tensor, "*rows blocks block"]:
    return torch.round(blocks / scale).clamp_(-1, 1)


def _store(
    codes: Float[Tensor, "*rows blocks block"],
    scale: Float[Tensor, "*rows blocks 1"],
    *,
    bits: int,
    columns: int,
) -> QuantizedTensor:
    return QuantizedTensor(pack(codes, bits=bits), scale.half().squeeze(-1), columns)
