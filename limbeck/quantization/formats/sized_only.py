"""Formats that a plan sizes and that nothing here trains or stores: what other runtimes offer.

Their products are those of dequantized weights, so only the order of sums differs.
"""

import abc
from typing import ClassVar, Literal

from typing_extensions import override

from limbeck.contracts.json_data import JsonMapping
from limbeck.contracts.parity import Tolerance
from limbeck.quantization.formats.base import Format
from limbeck.quantization.formats.floats import ROUNDING


class SizedOnly(Format, abc.ABC):
    """A format without arithmetic; small embeddings are usually kept in int4."""

    tolerance: ClassVar[Tolerance] = ROUNDING
    weights_per_scale: ClassVar[int]

    @property
    @override
    def block(self) -> int:
        return self.weights_per_scale

    @property
    @override
    def embedding_format(self) -> str:
        return "int4"

    @classmethod
    @override
    def matches(cls, config: JsonMapping) -> bool:
        return False


class Int2(SizedOnly):
    """2-bit integers in blocks of 128, embeddings in int4; sized only."""

    kind: Literal["int2"]
    bits: ClassVar[float] = 2
    weights_per_scale: ClassVar[int] = 128
    scale_bits: ClassVar[int] = 16


class Ternary(SizedOnly):
    """Five digits of base 3 in eight bits, blocks of 256, embeddings in int4; sized only."""

    kind: Literal["ternary"]
    bits: ClassVar[float] = 1.6
    weights_per_scale: ClassVar[int] = 256
    scale_bits: ClassVar[int] = 16
