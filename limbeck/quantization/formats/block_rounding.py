"""Symmetric integers with a scale a block of each row, in weights and in activations.

The integers are those of ONNX Runtime's `MatMulNBits`, bit for bit: 127 / absmax is computed first
and multiplied, halves go to even. A row's last block may be shorter than the others.
"""

import torch
from jaxtyping import Float, Real
from torch import Tensor
from torch.nn import functional

from limbeck.quantization.formats.rounding import LEVELS, SMALLEST_ABSMAX
from limbeck.quantization.formats.tensors import QuantizedTensor, pass_gradient

CHUNK_WEIGHTS = 1 << 17
"""Weights that are floats at a time: what a core's own cache holds."""


def split_blocks(
    x: Real[Tensor, "*rows columns"], *, block: int
) -> Float[Tensor, "*rows blocks block"]:
    """Each row in blocks of float32, the last one filled up with zeros."""
    return functional.pad(x.float(), (0, -x.shape[-1] % block)).unflatten(-1, (-1, block))


def join_blocks(
    blocks: Real[Tensor, "*rows blocks block"], *, columns: int
) -> Real[Tensor, "*rows columns"]:
    """The rows again, without what filled the last block up."""
    return blocks.flatten(-2)[..., :columns]


def _absmax(blocks: Float[Tensor, "*rows blocks block"]) -> Float[Tensor, "*rows blocks 1"]:
    return blocks.detach().abs().amax(dim=-1, keepdim=True).clamp_min(SMALLEST_ABSMAX)


def _to_steps(
    blocks: Float[Tensor, "*rows blocks block"], absmax: Float[Tensor, "*rows blocks 1"]
) -> Float[Tensor, "*rows blocks block"]:
    """Each block in its steps, not yet rounded."""
    # torch divides a number by a tensor through the reciprocal, which rounds once more.
    return blocks * (torch.full_like(absmax, LEVELS) / absmax)


def quantize(weight: Float[Tensor, "*rows columns"], *, block: int) -> QuantizedTensor:
    """The nearest codes of each block, and its scale; codes lie as the weights do."""
    blocks = split_blocks(weight.detach(), block=block)
    absmax = _absmax(blocks)
    codes = torch.round(_to_steps(blocks, absmax)).to(torch.int8)
    columns = weight.shape[-1]
    scale = (absmax / LEVELS).squeeze(-1)
    return QuantizedTensor(join_blocks(codes, columns=columns).contiguous(), scale, columns)


def dequantize(stored: QuantizedTensor, *, block: int) -> Float[Tensor, "*rows columns"]:
    """What the codes stand for, in float32."""
    if stored.columns % block:
        blocks = split_blocks(stored.codes, block=block)
    else:
        # Integers are multiplied as they are: a copy in float32 would take as long again.
        blocks = stored.codes.unflatten(-1, (-1, block))
    return join_blocks(blocks * stored.scale.float()[..., None], columns=stored.columns)


def fake(x: Float[Tensor, "*rows columns"], *, block: int) -> Float[Tensor, "*rows columns"]:
    """What the codes would stand for; the gradient is that of the row itself."""
    with torch.no_grad():
        blocks = split_blocks(x, block=block)
        absmax = _absmax(blocks)
        rounded = _to_steps(blocks, absmax).round_().mul_(absmax / LEVELS)
        rounded = join_blocks(rounded, columns=x.shape[-1]).to(x.dtype)
    return pass_gradient(x, rounded=rounded)


@torch.no_grad()
def multiply(
    x: Float[Tensor, "rows columns"], *, weight: QuantizedTensor, block: int
) -> Float[Tensor, "rows out"]:
    """x @ weight.T, activations rounded block by block.

    Integers times their scales are multiplied as floats: a block's sum is exact up to float32's
    rounding, and integer products of so few terms take longer (decision 0023).
    """
    rounded, columns = fake(x.float(), block=block), weight.columns
    num_blocks = weight.scale.shape[-1]
    num_rows = max(1, CHUNK_WEIGHTS // (num_blocks * block))
    # One buffer for all parts: fresh memory for each would take twice as long.
    blocks = rounded.new_zeros(min(num_rows, len(weight.codes)), num_blocks, block)
    products = []
    parts = zip(weight.codes.split(num_rows), weight.scale.split(num_rows), strict=True)
    for codes, scale in parts:
        part = blocks[: len(codes)]
        floats = part.flatten(-2)[:, :columns]
        floats.copy_(codes)
        part.mul_(scale.float()[..., None])
        products.append(functional.linear(rounded, floats))
    return products[0] if len(products) == 1 else torch.cat(products, dim=-1)


def fake_multiply(
    x: Float[Tensor, "*rows columns"], *, weight: Float[Tensor, "out columns"], block: int
) -> Float[Tensor, "*rows out"]:
    """The same product of unrounded weights, with gradients for both."""
    return functional.linear(fake(x.float(), block=block), fake(weight.float(), block=block))
