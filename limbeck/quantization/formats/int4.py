"""INT4: weights in four bits, activations in eight, both in blocks that share a scale (W4A8).

A block of a weight row has one float32 scale, the one of least squared error among seven; a block
of an activation row is rounded as INT8's. Embeddings and language head stay in INT8 unless set
otherwise.
"""

from typing import ClassVar, Literal, final

from typing_extensions import override

from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.formats.packed import PackedFormat

METHOD = "limbeck-int4"
Int4Embeddings = Literal["int8", "int4", "float32"]
Int4BlockSize = Literal[16, 32, 64, 128, 256]


@final
class Int4(PackedFormat):
    """Weights in 4 bits, activations in int8, in blocks of 32 that share a scale (W4A8)."""

    kind: Literal["int4"]
    method: ClassVar[str] = METHOD
    bits: ClassVar[float] = 4
    scale_bits: ClassVar[int] = 32
    chooses_codes_by_default: ClassVar[bool] = True
    block_size: Int4BlockSize = 32
    """Numbers of a row that share a scale, in weights and in activations: a scale takes 32 bits, so
    blocks of 32 cost one bit a weight, blocks of 128 a quarter of one."""
    embeddings: Int4Embeddings = "int8"
    """The token table and the language head."""

    @property
    @override
    def table(self) -> QuantizedFormat:
        if self.embeddings != "int8":
            return self
        return Int8(kind="int8", block_size=self.block_size)
