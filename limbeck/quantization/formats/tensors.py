"""A matrix in a number format, and the arithmetic that weight-only formats share."""

import abc
from dataclasses import dataclass

from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from limbeck.quantization.formats.base import QuantizedFormat


@dataclass(frozen=True)
class QuantizedTensor:
    """Rows of a matrix in a format; any rows of it, taken along the leading axes, are another."""

    codes: Shaped[Tensor, "*rows packed"]
    """Integers, perhaps several in one byte."""
    scale: Float[Tensor, "*rows blocks"]
    columns: int
    """Weights of a row, which packed codes do not show."""


class WeightOnlyFormat(QuantizedFormat, abc.ABC):
    """A format whose products are those of the dequantized weights; activations stay floats."""

    @override
    def fake(self, weight: Float[Tensor, "*rows columns"]) -> Float[Tensor, "*rows columns"]:
        rounded = self.dequantize(self.quantize(weight.detach())).to(weight.dtype)
        # The difference is exactly zero, so that training sees what is stored.
        return rounded + (weight - weight.detach())

    @override
    def multiply(
        self, x: Float[Tensor, "rows columns"], *, weight: QuantizedTensor
    ) -> Float[Tensor, "rows out"]:
        return functional.linear(x, self.dequantize(weight))

    @override
    def fake_multiply(
        self, x: Float[Tensor, "*rows columns"], *, weight: Float[Tensor, "out columns"]
    ) -> Float[Tensor, "*rows out"]:
        return functional.linear(x, self.fake(weight))
