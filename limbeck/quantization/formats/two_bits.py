"""INT2 and ternary: weights of two bits beside activations of eight (W2A8, W1.58A8).

A block of a weight row has one float16 scale. Ternary blocks of 256 are llama.cpp's TQ2_0 and TQ1_0
number for number, so that a GGUF file carries them as they are. Both formats need training for
them: a model that is only rounded to them loses most of what it can (decision 0040).
"""

import abc
from typing import TYPE_CHECKING, ClassVar, Literal, final

from typing_extensions import override

from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.formats.int4 import Int4
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.formats.packed import PackedFormat

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from limbeck.quantization.formats.grids import Grids
    from limbeck.quantization.formats.tensors import QuantizedTensor

TwoBitBlockSize = Literal[32, 64, 128, 256]
TwoBitEmbeddings = Literal["int4", "int8", "float32"]
TernaryScale = Literal["absmean", "least_squares"]


class TwoBitFormat(PackedFormat, abc.ABC):
    """Four codes to a byte, scales in float16, tables of more bits than the layers."""

    bits: ClassVar[float] = 2
    scale_bits: ClassVar[int] = 16
    embeddings: TwoBitEmbeddings = "int4"
    """The token table and the language head, in blocks of 32: two bits would be too few for them.
    """

    @property
    @override
    def table(self) -> QuantizedFormat:
        return Int8(kind="int8") if self.embeddings == "int8" else Int4(kind="int4")


@final
class Int2(TwoBitFormat):
    """Weights of -2 to 1 times a scale, activations in int8, in blocks with a scale (W2A8)."""

    kind: Literal["int2"]
    method: ClassVar[str] = "limbeck-int2"
    chooses_codes_by_default: ClassVar[bool] = True
    block_size: TwoBitBlockSize = 64
    """Numbers of a row that share a scale, in weights and in activations: a scale takes 16 bits, so
    blocks of 64 cost a quarter of a bit a weight, blocks of 128 an eighth."""


@final
class Ternary(TwoBitFormat):
    """Weights of -1, 0 and 1 times a scale, activations in int8, in blocks (BitNet b1.58)."""

    kind: Literal["ternary"]
    method: ClassVar[str] = "limbeck-ternary"
    block_size: TwoBitBlockSize = 256
    """Numbers of a row that share a scale, in weights and in activations. 256 is what GGUF files
    hold (TQ2_0, TQ1_0), of rows that are a multiple of it; other runtimes take any row and any
    block."""
    scale: TernaryScale = "absmean"
    """`absmean`: the mean magnitude of a block, as in BitNet b1.58. `least_squares`: the scale and
    codes of least squared error."""

    @property
    @override
    def keeps_grid(self) -> bool:
        """The mean magnitude of chosen codes is another step than theirs."""
        return self.scale == "least_squares"

    @override
    def find_grids(self, block: "Float[Tensor, 'rows columns']") -> "Grids":
        from limbeck.quantization.formats import ternary_codes

        return ternary_codes.find_grids(block)

    @override
    def quantize(self, weight: "Float[Tensor, '*rows columns']") -> "QuantizedTensor":
        from limbeck.quantization.formats import ternary_codes

        found = {
            "absmean": ternary_codes.quantize_absmean,
            "least_squares": ternary_codes.quantize_least_squares,
        }
        return found[self.scale](weight, block=self.block, bits=int(self.bits))
