"""Integers of four bits with a scale a block of each row, two to a byte.

Codes run from -8 to 7 and are stored around 8, the even column in a byte's low half: the layout of
ONNX Runtime's `MatMulNBits`. A row's last block is filled up with zeros.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from limbeck.quantization.formats.block_rounding import join_blocks, split_blocks
from limbeck.quantization.formats.rounding import SMALLEST_ABSMAX
from limbeck.quantization.formats.tensors import QuantizedTensor

LOW, HIGH, ZERO = -8, 7, 8
STEPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Parts of the step at which the number farthest from zero becomes -8. A smaller one cuts that
number off and is finer for all others; the one of least squared error is taken."""


def quantize(weight: Float[Tensor, "*rows columns"], *, block: int) -> QuantizedTensor:
    """The codes of each block, and the step of least squared error among `STEPS`."""
    blocks = split_blocks(weight.detach(), block=block)
    farthest = blocks.gather(-1, blocks.abs().argmax(dim=-1, keepdim=True))
    # Its sign is the step's, so that the side with eight codes is its own.
    whole = torch.where(farthest.abs() < SMALLEST_ABSMAX, SMALLEST_ABSMAX, farthest) / LOW
    best = torch.full_like(whole, torch.inf)
    codes, scale = torch.zeros_like(blocks), whole
    for part in STEPS:
        step = whole * part
        rounded = torch.round(blocks / step).clamp_(LOW, HIGH)
        error = (rounded * step - blocks).square_().sum(dim=-1, keepdim=True)
        is_better = error < best
        best = torch.where(is_better, error, best)
        codes = torch.where(is_better, rounded, codes)
        scale = torch.where(is_better, step, scale)
    return QuantizedTensor(_pack(codes), scale.squeeze(-1), weight.shape[-1])


def dequantize(stored: QuantizedTensor, *, block: int) -> Float[Tensor, "*rows columns"]:
    """What the codes stand for, in float32."""
    blocks = _unpack(stored.codes).unflatten(-1, (-1, block))
    return join_blocks(blocks * stored.scale.float()[..., None], columns=stored.columns)


def _pack(codes: Float[Tensor, "*rows blocks block"]) -> UInt8[Tensor, "*rows bytes"]:
    halves = (codes + ZERO).to(torch.uint8).flatten(-2)
    return (halves[..., 0::2] | (halves[..., 1::2] << 4)).contiguous()


def _unpack(packed: UInt8[Tensor, "*rows bytes"]) -> Float[Tensor, "*rows columns"]:
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2).float() - ZERO
