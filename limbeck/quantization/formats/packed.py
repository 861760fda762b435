"""Formats whose weights lie several in a byte, in blocks of a row that share a scale.

Activations are rounded to int8 in blocks of the same length; embeddings and language head may be in
another format, because a small model's table is a large part of it and its head decides every
token. Left out: how the codes of a block are found, which each format says.
"""

import abc
from typing import TYPE_CHECKING, ClassVar, get_args

from typing_extensions import override

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.contracts.parity import Tolerance
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.formats.int8 import Int8

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from limbeck.quantization.formats.grids import Grids
    from limbeck.quantization.formats.tensors import QuantizedTensor

BYTE = 8


class PackedFormat(QuantizedFormat, abc.ABC):
    """Weights of a few bits in blocks, activations in int8."""

    method: ClassVar[str]
    """The `quant_method` of its checkpoints."""
    codes_dtype: ClassVar[str] = "uint8"
    tolerance: ClassVar[Tolerance] = Int8.tolerance
    """Activations are rounded as INT8's, so two copies part as INT8's do."""
    block_size: int
    """Weights that share a scale; a format names the lengths that it has."""
    embeddings: str
    """The format of embeddings and language head, one of those that a format names."""

    @property
    @override
    def block(self) -> int:
        return self.block_size

    @property
    @override
    def embedding_format(self) -> str:
        return self.embeddings

    @override
    def num_bits(self, *, rows: int, columns: int) -> float:
        """Bits of a matrix with its scales; the last block of a row is filled up."""
        num_blocks = -(-columns // self.block)
        return float(rows * num_blocks * (self.block * self.bits + self.scale_bits))

    @override
    def num_codes(self, columns: int) -> int:
        return -(-columns // self.block) * self.block * int(self.bits) // BYTE

    @property
    @override
    def keeps_grid(self) -> bool:
        return True

    @override
    def find_grids(self, block: "Float[Tensor, 'rows columns']") -> "Grids":
        from limbeck.quantization.formats import low_bits

        return low_bits.find_grids(block, bits=int(self.bits), scale_bits=self.scale_bits)

    @override
    def quantize(self, weight: "Float[Tensor, '*rows columns']") -> "QuantizedTensor":
        from limbeck.quantization.formats import low_bits

        return low_bits.quantize(
            weight, block=self.block, bits=int(self.bits), scale_bits=self.scale_bits
        )

    @override
    def dequantize(self, stored: "QuantizedTensor") -> "Float[Tensor, '*rows columns']":
        from limbeck.quantization.formats import low_bits

        return low_bits.dequantize(stored, block=self.block, bits=int(self.bits))

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
            "quant_method": self.method,
            **{name: getattr(self, name) for name in self._described()},
            "ignore": ["lm_head"] if self.embeddings == "float32" else [],
        }

    @classmethod
    @override
    def matches(cls, config: JsonMapping) -> bool:
        return (config.get("quantization_config") or {}).get("quant_method") == cls.method

    @classmethod
    @override
    def from_config(cls, config: JsonMapping) -> "QuantizedFormat":
        described = config["quantization_config"]
        found = {}
        for name, known in cls._described().items():
            found[name] = described.get(name)
            if found[name] not in known:
                raise CheckpointError(
                    f"config.json: quantization_config.{name} is {found[name]!r}; expected one of "
                    f"{', '.join(map(str, known))}"
                )
        return cls.model_validate({"kind": cls.method.removeprefix("limbeck-"), **found})

    @classmethod
    def _described(cls) -> dict[str, tuple[object, ...]]:
        """Its fields with the values that each can have."""
        names = cls.model_fields.keys() - {"kind", "layers"}
        return {name: get_args(cls.model_fields[name].annotation) for name in sorted(names)}
