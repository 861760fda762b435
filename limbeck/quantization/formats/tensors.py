"""A matrix in a number format, and the arithmetic that weight-only formats share."""

import abc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from limbeck.quantization.formats.base import QuantizedFormat

CHUNK_WEIGHTS = 1 << 20
"""Weights that are floats at a time: what a processor's cache holds is read ten times faster."""


@dataclass(frozen=True)
class QuantizedTensor:
    """Rows of a matrix in a format; any rows of it, taken along the leading axes, are another."""

    codes: Shaped[Tensor, "*rows packed"]
    """Integers, perhaps several in one byte."""
    scale: Float[Tensor, "*rows blocks"]
    columns: int
    """Weights of a row, which packed codes do not show."""


Dequantize = Callable[[QuantizedTensor], Float[Tensor, "out columns"]]


def multiply_dequantized(
    x: Float[Tensor, "rows columns"], *, weight: QuantizedTensor, dequantize: Dequantize
) -> Float[Tensor, "rows out"]:
    """x @ weight.T between floats, some rows of the weights at a time."""
    num_rows = max(1, CHUNK_WEIGHTS // max(1, weight.columns))
    parts = zip(weight.codes.split(num_rows), weight.scale.split(num_rows), strict=True)
    products = [
        functional.linear(x, dequantize(QuantizedTensor(codes, scale, weight.columns)))
        for codes, scale in parts
    ]
    return products[0] if len(products) == 1 else torch.cat(products, dim=-1)


def fake_codes(
    weight: Float[Tensor, "*rows columns"], *, number_format: QuantizedFormat
) -> Float[Tensor, "*rows columns"]:
    """What the stored codes stand for; the gradient is that of the weight itself."""
    stored = number_format.quantize(weight.detach())
    rounded = number_format.dequantize(stored).to(weight.dtype)
    return pass_gradient(weight, rounded=rounded)


def pass_gradient(
    x: Float[Tensor, "*rows columns"], *, rounded: Float[Tensor, "*rows columns"]
) -> Float[Tensor, "*rows columns"]:
    """The rounded numbers with the gradient of those that were rounded."""
    # The difference is exactly zero, so that training sees what is stored.
    return rounded + (x - x.detach())


class WeightOnlyFormat(QuantizedFormat, abc.ABC):
    """A format whose products are those of the dequantized weights; activations stay floats."""

    @override
    def fake(self, weight: Float[Tensor, "*rows columns"]) -> Float[Tensor, "*rows columns"]:
        return fake_codes(weight, number_format=self)

    @override
    def multiply(
        self, x: Float[Tensor, "rows columns"], *, weight: QuantizedTensor
    ) -> Float[Tensor, "rows out"]:
        return multiply_dequantized(x, weight=weight, dequantize=self.dequantize)

    @override
    def fake_multiply(
        self, x: Float[Tensor, "*rows columns"], *, weight: Float[Tensor, "out columns"]
    ) -> Float[Tensor, "*rows out"]:
        return functional.linear(x, self.fake(weight))
