"""Fake quantisation: rounding in the forward pass that the backward pass does not see.

The straight-through estimator (Bengio et al. 2013, arXiv:1308.3432): rounding passes its gradient
on unchanged; scales are constants to it. Steps and rounding are those of the stored integers
(`limbeck.quantization.formats.int8`), so what training sees is what runs.
Absmax scales never clip, so no clipped range needs its gradient stopped.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from limbeck.quantization.formats.int8 import absmax_scales, round_to_steps


def fake_round(
    x: Float[Tensor, "*rows channels"], scales: Float[Tensor, "*rows 1"]
) -> Float[Tensor, "*rows channels"]:
    """Whole numbers of steps; the gradient is that of x / scales."""
    steps = x.float() / scales
    return steps + (round_to_steps(x, scales) - steps).detach()


def fake_quantize(x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows channels"]:
    """Rows rounded to 255 symmetric levels each; the gradient is that of x."""
    scales = absmax_scales(x)
    return (fake_round(x, scales) * scales).to(x.dtype)


def fake_quantized_linear(
    x: Float[Tensor, "*rows channels"],
    *,
    weight: Float[Tensor, "out channels"],
    bias: Float[Tensor, " out"] | None,
) -> Float[Tensor, "*rows out"]:
    """What the integer layer computes, with gradients for input, weight and bias.

    The product is taken between whole numbers and scaled afterwards, as the integer layer does:
    float32 adds up to 1040 such products exactly, so up to that width both agree bit for bit
    (beyond it they differ by float32 rounding of partial sums above 2 ** 24). Under autocast the
    product follows autocast's precision: whole numbers up to 127 are exact in bfloat16.
    """
    x_scales, weight_scales = absmax_scales(x), absmax_scales(weight)
    product = functional.linear(fake_round(x, x_scales), fake_round(weight, weight_scales))
    outputs = product.float() * weight_scales.t() * x_scales
    return (outputs if bias is None else outputs + bias).to(x.dtype)
