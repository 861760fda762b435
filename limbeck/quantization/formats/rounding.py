"""Rounding to symmetric integers with a scale a row, and products of such integers."""

import torch
from jaxtyping import Float
from jaxtyping import Int8 as Int8Tensor
from torch import Tensor
from torch.nn import functional

from limbeck.quantization.formats.tensors import QuantizedTensor

LEVELS = 127
"""Integers run from -127 to 127: symmetric, so zero is exact and signs cost nothing."""


SMALLEST_ABSMAX = 1e-10
"""Keeps the scale of an all-zero row finite."""


EXACT_TERMS = 1040
"""Products of two int8 that float32 can add without rounding: 1040 * 127 * 127 < 2 ** 24."""


def absmax_scales(x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows 1"]:
    """The float32 step of each row: its largest magnitude becomes 127."""
    return x.detach().float().abs().amax(dim=-1, keepdim=True).clamp_min(SMALLEST_ABSMAX) / LEVELS


def round_to_steps(
    x: Float[Tensor, "*rows channels"], scales: Float[Tensor, "*rows 1"]
) -> Float[Tensor, "*rows channels"]:
    """Integers, as float32: the nearest multiple of each row's step, halves to even."""
    return torch.round(x.float() / scales)


def fake_round(
    x: Float[Tensor, "*rows channels"], scales: Float[Tensor, "*rows 1"]
) -> Float[Tensor, "*rows channels"]:
    """Whole numbers of steps; the gradient is that of x / scales, scales being constants."""
    steps = x.float() / scales
    return steps + (round_to_steps(x, scales) - steps).detach()


def multiply_integers(
    left: Int8Tensor[Tensor, "rows terms"], right: Int8Tensor[Tensor, "columns terms"]
) -> Float[Tensor, "rows columns"]:
    """left @ right.T, exactly, as float32: in int32 where the CPU has instructions for that."""
    # One term makes the strides of right.T ambiguous, which torch's kernel mistakes.
    if left.device.type == "cpu" and left.shape[1] > 1 and torch.cpu._is_vnni_supported():
        return torch._int_mm(left, right.t()).float()
    return multiply_in_float32(left, right)


def multiply_in_float32(
    left: Int8Tensor[Tensor, "rows terms"], right: Int8Tensor[Tensor, "columns terms"]
) -> Float[Tensor, "rows columns"]:
    """left @ right.T where int8 products restrict the shapes, or are slower than float ones.

    Without such instructions torch's int8 product takes 7 to 27 times as long at 64 rows. Runs of
    terms are short enough for float32 to add them exactly.
    """
    total = torch.zeros(left.shape[0], right.shape[0], device=left.device)
    for start in range(0, left.shape[1], EXACT_TERMS):
        part = slice(start, start + EXACT_TERMS)
        total += left[:, part].float() @ right[:, part].float().t()
    return total


def quantize_rows(weight: Float[Tensor, "*rows columns"]) -> QuantizedTensor:
    """The nearest codes of each row, and its scale."""
    scale = absmax_scales(weight)
    codes = round_to_steps(weight.detach(), scale).to(torch.int8)
    return QuantizedTensor(codes, scale, weight.shape[-1])


def fake_rows(weight: Float[Tensor, "*rows columns"]) -> Float[Tensor, "*rows columns"]:
    """What the codes stand for; the gradient is that of the weight."""
    scales = absmax_scales(weight)
    return (fake_round(weight, scales) * scales).to(weight.dtype)


def multiply(
    x: Float[Tensor, "rows columns"], *, weight: QuantizedTensor
) -> Float[Tensor, "rows out"]:
    """x @ weight.T between integers: activations are rounded row by row."""
    scales = absmax_scales(x)
    integers = round_to_steps(x, scales).to(torch.int8)
    return multiply_integers(integers, weight.codes) * weight.scale.t() * scales


def fake_multiply(
    x: Float[Tensor, "*rows columns"], *, weight: Float[Tensor, "out columns"]
) -> Float[Tensor, "*rows out"]:
    """The same product of unrounded weights, with gradients for both."""
    # The product is taken between whole numbers and scaled afterwards, as the integer layer
    # does: float32 adds up to 1040 such products exactly, so up to that width both agree bit
    # for bit (beyond it they differ by float32 rounding of partial sums above 2 ** 24). Under
    # autocast the product follows autocast's precision: whole numbers up to 127 are exact in
    # bfloat16.
    x_scales, scales = absmax_scales(x), absmax_scales(weight)
    product = functional.linear(fake_round(x, x_scales), fake_round(weight, scales))
    return product.float() * scales.t() * x_scales
