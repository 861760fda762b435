"""INT4: weights in four bits, activations in eight, both in blocks that share a scale (W4A8).

A block of a weight row has one float32 scale, the one of least squared error among seven; a block
of an activation row is rounded as INT8's. Embeddings and language head stay in INT8 unless told
otherwise: a small model's table is a large part of it, and its head decides every token.
"""

from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from typing_extensions import override

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.contracts.parity import Tolerance
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.formats.int8 import Int8

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from limbeck.quantization.formats.tensors import QuantizedTensor

METHOD = "limbeck-int4"
Int4Embeddings = Literal["int8", "int4", "float32"]
Int4BlockSize = Literal[16, 32, 64, 128, 256]


class Int4(QuantizedFormat):
    """Weights in 4 bits, activations in int8, in blocks of 32 that share a scale (W4A8)."""

    kind: Literal["int4"]
    bits: ClassVar[float] = 4
    scale_bits: ClassVar[int] = 32
    codes_dtype: ClassVar[str] = "uint8"
    tolerance: ClassVar[Tolerance] = Int8.tolerance
    """Activations are rounded as INT8's, so two copies part as INT8's do."""
    block_size: Int4BlockSize = 32
    """Numbers of a row that share a scale, in weights and in activations: a scale takes 32 bits, so
    blocks of 32 cost one bit a weight, blocks of 128 a quarter of one."""
    embeddings: Int4Embeddings = "int8"
    """The token table and the language head."""

    @property
    @override
    def block(self) -> int:
        return self.block_size

    @property
    @override
    def embedding_format(self) -> str:
        return self.embeddings

    @property
    @override
    def table(self) -> QuantizedFormat:
        if self.embeddings != "int8":
            return self
        return Int8(kind="int8", block_size=self.block_size)

    @override
    def num_bits(self, *, rows: int, columns: int) -> float:
        """Bits of a matrix with its scales; the last block of a row is filled up."""
        num_blocks = -(-columns // self.block_size)
        return float(rows * num_blocks * (self.block_size * self.bits + self.scale_bits))

    @override
    def num_codes(self, columns: int) -> int:
        return -(-columns // self.block_size) * self.block_size // 2

    @override
    def quantize(self, weight: "Float[Tensor, '*rows columns']") -> "QuantizedTensor":
        from limbeck.quantization.formats import nibbles

        return nibbles.quantize(weight, block=self.block)

    @override
    def dequantize(self, stored: "QuantizedTensor") -> "Float[Tensor, '*rows columns']":
        from limbeck.quantization.formats import nibbles

        return nibbles.dequantize(stored, block=self.block)

    @override
    def fake(self, weight: "Float[Tensor, '*rows columns']") -> "Float[Tensor, '*rows columns']":
        from limbeck.quantization.formats.tensors import fake_codes

        return fake_codes(weight, number_format=self)

    @override
    def multiply(
        self, x: "Float[Tensor, 'rows columns']", *, weight: "QuantizedTensor"
    ) -> "Float[Tensor, 'rows out']":
        from limbeck.quantization.formats import block_rounding
        from limbeck.quantization.formats.tensors import multiply_dequantized

        rounded = block_rounding.fake(x.float(), block=self.block)
        return multiply_dequantized(rounded, weight=weight, dequantize=self.dequantize)

    @override
    def fake_multiply(
        self, x: "Float[Tensor, '*rows columns']", *, weight: "Float[Tensor, 'out columns']"
    ) -> "Float[Tensor, '*rows out']":
        from torch.nn import functional

        from limbeck.quantization.formats import block_rounding

        rounded = block_rounding.fake(x.float(), block=self.block)
        return functional.linear(rounded, self.fake(weight.float()))

    @override
    def describe(self) -> JsonObject:
        return {
            "quant_method": METHOD,
            "block_size": self.block_size,
            "ignore": ["lm_head"] if self.embeddings == "float32" else [],
            "embeddings": self.embeddings,
        }

    @classmethod
    @override
    def matches(cls, config: JsonMapping) -> bool:
        return (config.get("quantization_config") or {}).get("quant_method") == METHOD

    @classmethod
    @override
    def from_config(cls, config: JsonMapping) -> "QuantizedFormat":
        described = config["quantization_config"]
        for name, known in (("block_size", Int4BlockSize), ("embeddings", Int4Embeddings)):
            if described.get(name) not in get_args(known):
                raise CheckpointError(
                    f"config.json: quantization_config.{name} is {described.get(name)!r}; expected "
                    f"one of {', '.join(map(str, get_args(known)))}"
                )
        return cls(
            kind="int4", block_size=described["block_size"], embeddings=described["embeddings"]
        )
