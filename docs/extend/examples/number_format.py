"""4-bit integers in blocks of 32 weights: the number format of docs/extend/number-format.md."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from limbeck.contracts.parity import Tolerance
from limbeck.quantization.formats.floats import ROUNDING
from limbeck.quantization.formats.tensors import QuantizedTensor, WeightOnlyFormat

LEVELS = 7
"""Integers run from -7 to 7, stored as 1 to 15."""
SHIFT = 8
SMALLEST_SCALE = 2.0**-24
"""The smallest float16; keeps the scale of a block of zeros above 0."""


class Int4Blocks(WeightOnlyFormat):
    """4-bit integers in blocks of 32, each block with a float16 scale."""

    kind: Literal["int4_blocks"]
    bits: ClassVar[float] = 4
    scale_bits: ClassVar[int] = 16
    tolerance: ClassVar[Tolerance] = ROUNDING

    @property
    @override
    def block(self) -> int:
        return 32

    @property
    @override
    def embedding_format(self) -> str:
        return self.kind

    @override
    def quantize(self, weight: Float[Tensor, "*rows columns"]) -> QuantizedTensor:
        columns = weight.shape[-1]
        blocks = functional.pad(weight.float(), (0, -columns % 32)).unflatten(-1, (-1, 32))
        scale = (blocks.abs().amax(dim=-1) / LEVELS).clamp_min(SMALLEST_SCALE).half()
        steps = (blocks / scale.float()[..., None]).round().clamp(-LEVELS, LEVELS)
        digits = (steps + SHIFT).to(torch.uint8).flatten(-2)
        return QuantizedTensor(digits[..., ::2] | digits[..., 1::2] << 4, scale, columns)

    @override
    def dequantize(self, stored: QuantizedTensor) -> Float[Tensor, "*rows columns"]:
        digits = torch.stack([stored.codes & 15, stored.codes >> 4], dim=-1).flatten(-2)
        blocks = (digits.float() - SHIFT).unflatten(-1, (-1, 32))
        return (blocks * stored.scale.float()[..., None]).flatten(-2)[..., : stored.columns]

    @override
    def describe(self) -> dict[str, Any]:
        return {"quant_method": self.kind, "embeddings": self.kind}

    @classmethod
    @override
    def matches(cls, config: Mapping[str, Any]) -> bool:
        return (config.get("quantization_config") or {}).get("quant_method") == "int4_blocks"

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> "Int4Blocks":
        return cls(kind="int4_blocks")
