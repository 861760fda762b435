"""Integers of four or two bits with a scale a block of each row, several to a byte.

Codes of b bits run from -2 ** (b - 1) and are stored around zero's 2 ** (b - 1), earlier columns in
a byte's lower bits: the layout of ONNX Runtime's `MatMulNBits`. A row's last block is filled up
with zeros.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from limbeck.quantization.formats.block_rounding import join_blocks, split_blocks
from limbeck.quantization.formats.grids import Grids
from limbeck.quantization.formats.rounding import SMALLEST_ABSMAX
from limbeck.quantization.formats.tensors import QuantizedTensor

STEPS: Mapping[int, tuple[float, ...]] = {
    4: (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7),
    2: (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5),
}
"""By bits, parts of the step at which the number farthest from zero becomes the lowest code. A
smaller one cuts that number off and is finer for all others; the one of least squared error is
taken."""
SMALLEST_HALF_SCALE = 2.0**-24
"""The smallest float16: a block of which no scale is a float16 above it is a block of zeros."""


def quantize(
    weight: Float[Tensor, "*rows columns"], *, block: int, bits: int, scale_bits: int
) -> QuantizedTensor:
    """The codes of each block, and the step of least squared error among `STEPS`."""
    blocks = split_blocks(weight.detach(), block=block)
    low = -(1 << (bits - 1))
    whole, _ = _find_whole_step(blocks, low=low)
    best = torch.full_like(whole, torch.inf)
    codes, scale = torch.zeros_like(blocks), whole
    for part in STEPS[bits]:
        step = whole * part
        if scale_bits == torch.finfo(torch.float16).bits:
            step = as_half(step)
        rounded = torch.round(blocks / step).clamp_(low, -low - 1)
        error = (rounded * step - blocks).square_().sum(dim=-1, keepdim=True)
        is_better = error < best
        best = torch.where(is_better, error, best)
        codes = torch.where(is_better, rounded, codes)
        scale = torch.where(is_better, step, scale)
    stored = scale.half() if scale_bits == torch.finfo(torch.float16).bits else scale
    return QuantizedTensor(pack(codes, bits=bits), stored.squeeze(-1), weight.shape[-1])


def _find_whole_step(
    blocks: Float[Tensor, "*rows block"], *, low: int
) -> tuple[Float[Tensor, "*rows 1"], Int[Tensor, "*rows 1"]]:
    """The step at which the number farthest from zero is the lowest code, and where that lies."""
    place = blocks.abs().argmax(dim=-1, keepdim=True)
    farthest = blocks.gather(-1, place)
    # Its sign is the step's, so that the side with one code more is its own.
    return torch.where(farthest.abs() < SMALLEST_ABSMAX, SMALLEST_ABSMAX, farthest) / low, place


def find_grids(block: Float[Tensor, "rows columns"], *, bits: int, scale_bits: int) -> Grids:
    """Those of all `STEPS`; the number farthest from zero is the lowest code on each.

    In a block that has the lowest code `quantize` finds its step again, without an error.
    """
    low = -(1 << (bits - 1))
    whole, place = _find_whole_step(block, low=low)
    steps = torch.stack([whole.squeeze(-1) * part for part in STEPS[bits]])
    if scale_bits == torch.finfo(torch.float16).bits:
        steps = as_half(steps)
    is_zero = whole.abs() <= SMALLEST_ABSMAX / -low
    return Grids(steps, low, -low - 1, torch.where(is_zero, -1, place).squeeze(-1))


def as_half(step: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
    """The nearest steps that a float16 holds, none of them zero; in float32."""
    halves = step.half().float()
    return torch.where(halves == 0, SMALLEST_HALF_SCALE, halves)


def dequantize(stored: QuantizedTensor, *, block: int, bits: int) -> Float[Tensor, "*rows columns"]:
    """What the codes stand for, in float32."""
    blocks = unpack(stored.codes, bits=bits).unflatten(-1, (-1, block))
    return join_blocks(blocks * stored.scale.float()[..., None], columns=stored.columns)


def pack(codes: Float[Tensor, "*rows blocks block"], *, bits: int) -> UInt8[Tensor, "*rows bytes"]:
    """Whole numbers as bytes."""
    numbers = (codes + (1 << (bits - 1))).to(torch.uint8).flatten(-2)
    shares = numbers.unflatten(-1, (-1, 8 // bits))
    packed = torch.zeros_like(shares[..., 0])
    for place in range(shares.shape[-1]):
        packed |= shares[..., place] << (bits * place)
    return packed


def unpack(packed: UInt8[Tensor, "*rows bytes"], *, bits: int) -> Float[Tensor, "*rows columns"]:
    """The whole numbers that bytes hold."""
    mask, zero = (1 << bits) - 1, 1 << (bits - 1)
    shares = [(packed >> shift) & mask for shift in range(0, 8, bits)]
    return torch.stack(shares, dim=-1).flatten(-2).float() - zero
