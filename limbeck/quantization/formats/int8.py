"""INT8: weights and activations as integers, both in blocks that share a scale (W8A8).

A block of a weight row has one float32 scale, absmax / 127; a block of an activation row gets its
own at run time, so nothing is calibrated. Absmax scales never clip, so no clipped range needs its
gradient stopped. A block keeps an outlier's large step to itself (decision 0023).

The folder keeps the tensor names of compressed-tensors' "int-quantized" format: `<module>.weight`
int8, `<module>.weight_scale` [out, blocks]. With float embeddings it *is* that format, which stock
transformers reads if every width is a multiple of the block. With int8 embeddings it calls itself
`limbeck-int8`, because those readers leave embeddings alone and would look up integers as if they
were weights; so it does where some layers have another format.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from typing_extensions import override

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.contracts.parity import Tolerance
from limbeck.quantization.formats.base import QuantizedFormat

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from limbeck.quantization.formats.tensors import QuantizedTensor

METHOD = "limbeck-int8"
STOCK_METHOD = "compressed-tensors"
Int8Embeddings = Literal["int8", "float32"]
Int8BlockSize = Literal[16, 32, 64, 128, 256, "row"]
BLOCK_SIZES: tuple[Int8BlockSize, ...] = get_args(Int8BlockSize)


class Int8(QuantizedFormat):
    """Weights and activations in int8, in blocks of 32 that share a scale (W8A8)."""

    kind: Literal["int8"]
    bits: ClassVar[float] = 8
    scale_bits: ClassVar[int] = 32
    smooths_by_default: ClassVar[bool] = True
    tolerance: ClassVar[Tolerance] = Tolerance(measure="copy_rounding_kl / rounding_kl", limit=2)
    """Both round by one scheme, but an activation on the border of two steps falls to either side,
    by float32 rounding before it, and one such step moves the activations of every later layer. In
    a deep model all roundings part in the end: two copies then lie as far from each other as from
    the unrounded model, and no fixed distance holds. What stays equal is what rounding costs: a
    ratio of 0.99 to 1.20 was measured. Twice is allowed, and 0 is what a runtime has that rounds no
    activations (docs/decisions/0023-int8-blocks.md)."""
    block_size: Int8BlockSize = 32
    """Numbers of a row that share a scale, in weights and in activations. `row`: a scale for each
    output channel and each token, as other tools store W8A8; outliers then cost ten times as
    much."""
    embeddings: Int8Embeddings = "int8"
    """The token table and the language head; float32 keeps both, in the compressed-tensors format
    that stock readers understand, at four times their bytes."""

    @property
    @override
    def block(self) -> int | None:
        return None if self.block_size == "row" else self.block_size

    @property
    @override
    def embedding_format(self) -> str:
        return self.embeddings

    @override
    def quantize(self, weight: "Float[Tensor, '*rows columns']") -> "QuantizedTensor":
        from limbeck.quantization.formats import block_rounding, rounding

        if self.block is None:
            return rounding.quantize_rows(weight)
        return block_rounding.quantize(weight, block=self.block)

    @override
    def dequantize(self, stored: "QuantizedTensor") -> "Float[Tensor, '*rows columns']":
        from limbeck.quantization.formats import block_rounding

        if self.block is None:
            return stored.codes.float() * stored.scale
        return block_rounding.dequantize(stored, block=self.block)

    @override
    def fake(self, weight: "Float[Tensor, '*rows columns']") -> "Float[Tensor, '*rows columns']":
        from limbeck.quantization.formats import block_rounding, rounding

        if self.block is None:
            return rounding.fake_rows(weight)
        return block_rounding.fake(weight, block=self.block)

    @override
    def multiply(
        self, x: "Float[Tensor, 'rows columns']", *, weight: "QuantizedTensor"
    ) -> "Float[Tensor, 'rows out']":
        from limbeck.quantization.formats import block_rounding, rounding

        if self.block is None:
            return rounding.multiply(x, weight=weight)
        return block_rounding.multiply(x, weight=weight, block=self.block)

    @override
    def fake_multiply(
        self, x: "Float[Tensor, '*rows columns']", *, weight: "Float[Tensor, 'out columns']"
    ) -> "Float[Tensor, '*rows out']":
        from limbeck.quantization.formats import block_rounding, rounding

        if self.block is None:
            return rounding.fake_multiply(x, weight=weight)
        return block_rounding.fake_multiply(x, weight=weight, block=self.block)

    @override
    def describe(self) -> JsonObject:
        integers = {"num_bits": 8, "type": "int", "symmetric": True}
        if self.block is None:
            weights, inputs = {"strategy": "channel"}, {"strategy": "token"}
        else:
            weights = inputs = {"strategy": "group", "group_size": self.block}
        group = {
            "targets": ["Linear"],
            "weights": {**integers, **weights, "dynamic": False},
            "input_activations": {**integers, **inputs, "dynamic": True},
            "output_activations": None,
            "format": "int-quantized",
        }
        keeps_tables = self.embeddings == "float32"
        is_stock = keeps_tables and not self.layers
        described: JsonObject = {
            "quant_method": STOCK_METHOD if is_stock else METHOD,
            "format": "int-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"] if keeps_tables else [],
        }
        return described if is_stock else described | {"embeddings": self.embeddings}

    @classmethod
    @override
    def matches(cls, config: JsonMapping) -> bool:
        """Whether the weights are these integers, in compressed-tensors folders of others too."""
        described = config.get("quantization_config") or {}
        if described.get("quant_method") == METHOD:
            return True
        return (
            described.get("quant_method") == STOCK_METHOD
            and described.get("format") == "int-quantized"
            and _find_block_size(_groups(described)) is not None
        )

    @classmethod
    @override
    def from_config(cls, config: JsonMapping) -> "QuantizedFormat":
        described = config["quantization_config"]
        block_size = _find_block_size(_groups(described))
        if block_size is None:
            raise CheckpointError(
                "config.json: quantization_config.config_groups describe no symmetric 8-bit "
                "weights and activations, each with a scale a row or in blocks of "
                f"{', '.join(map(str, BLOCK_SIZES[:-1]))}"
            )
        if described["quant_method"] == STOCK_METHOD:
            return cls(kind="int8", block_size=block_size, embeddings="float32")
        if described.get("embeddings") not in get_args(Int8Embeddings):
            raise CheckpointError(
                "config.json: quantization_config.embeddings is "
                f"{described.get('embeddings')!r}; expected 'int8' or 'float32'"
            )
        return cls(kind="int8", block_size=block_size, embeddings=described["embeddings"])


def _groups(described: JsonMapping) -> list[JsonMapping]:
    return list((described.get("config_groups") or {}).values())


def _find_block_size(groups: Iterable[JsonMapping]) -> Int8BlockSize | None:
    """The block size that every group of modules has; None where one is stored otherwise."""
    found: set[Int8BlockSize | None] = {_read_block_size(group) for group in groups}
    return found.pop() if len(found) == 1 else None


def _read_block_size(group: JsonMapping) -> Int8BlockSize | None:
    weights = group.get("weights") or {}
    inputs = group.get("input_activations") or {}
    if (
        group.get("targets") != ["Linear"]
        or (weights.get("num_bits"), inputs.get("num_bits")) != (8, 8)
        or {weights.get("type", "int"), inputs.get("type", "int")} != {"int"}
        or not (weights.get("symmetric", True) and inputs.get("symmetric", True))
        or not inputs.get("dynamic", True)
    ):
        return None
    if (weights.get("strategy"), inputs.get("strategy")) == ("channel", "token"):
        return "row"
    if (weights.get("strategy"), inputs.get("strategy")) != ("group", "group"):
        return None
    found = [weights.get("group_size"), inputs.get("group_size")]
    return next((size for size in BLOCK_SIZES if found == [size, size]), None)
