"""INT8: per-channel weights and per-token activations, both as integers (W8A8).

A weight row has one float32 scale, absmax / 127; an activation row gets its own at run time, so
nothing is calibrated. Absmax scales never clip, so no clipped range needs its gradient stopped.

The folder keeps the tensor names of compressed-tensors' "int-quantized" format: `<module>.weight`
int8, `<module>.weight_scale` [out, 1]. With float embeddings it *is* that format, which stock
transformers reads. With int8 embeddings it calls itself `limbeck-int8`, because those
readers leave embeddings alone and would look up integers as if they were weights.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

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
Embeddings = Literal["int8", "float32"]


class Int8(QuantizedFormat):
    """Weights in int8 per output channel, activations in int8 per token (W8A8)."""

    kind: Literal["int8"]
    bits: ClassVar[float] = 8
    scale_bits: ClassVar[int] = 32
    tolerance: ClassVar[Tolerance] = Tolerance(measure="mean_kl", limit=2e-3)
    """Integers follow the same scheme in every runtime, but an activation on the border of two
    steps may fall to either side, by float32 rounding before it; the largest difference of a logit
    is then a whole step's and says little. Such steps measured 1e-6 to 6e-4 on random models, 9 to
    40 times less than INT8 itself costs."""
    embeddings: Embeddings = "int8"
    """The token table and the language head; float32 keeps both, in the compressed-tensors format
    that stock readers understand, at four times their bytes."""

    @property
    @override
    def embedding_format(self) -> str:
        return self.embeddings

    @override
    def quantize(self, weight: "Float[Tensor, '*rows columns']") -> "QuantizedTensor":
        from limbeck.quantization.formats import rounding

        return rounding.quantize_rows(weight)

    @override
    def dequantize(self, stored: "QuantizedTensor") -> "Float[Tensor, '*rows columns']":
        return stored.codes.float() * stored.scale

    @override
    def fake(self, weight: "Float[Tensor, '*rows columns']") -> "Float[Tensor, '*rows columns']":
        from limbeck.quantization.formats import rounding

        return rounding.fake_rows(weight)

    @override
    def multiply(
        self, x: "Float[Tensor, 'rows columns']", *, weight: "QuantizedTensor"
    ) -> "Float[Tensor, 'rows out']":
        from limbeck.quantization.formats import rounding

        return rounding.multiply(x, weight=weight)

    @override
    def fake_multiply(
        self, x: "Float[Tensor, '*rows columns']", *, weight: "Float[Tensor, 'out columns']"
    ) -> "Float[Tensor, '*rows out']":
        from limbeck.quantization.formats import rounding

        return rounding.fake_multiply(x, weight=weight)

    @override
    def describe(self) -> JsonObject:
        axis = {"num_bits": 8, "type": "int", "symmetric": True}
        group = {
            "targets": ["Linear"],
            "weights": {**axis, "strategy": "channel", "dynamic": False},
            "input_activations": {**axis, "strategy": "token", "dynamic": True},
            "output_activations": None,
            "format": "int-quantized",
        }
        is_stock = self.embeddings == "float32"
        described: JsonObject = {
            "quant_method": STOCK_METHOD if is_stock else METHOD,
            "format": "int-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"] if is_stock else [],
        }
        return described if is_stock else described | {"embeddings": self.embeddings}

    @classmethod
    @override
    def matches(cls, config: JsonMapping) -> bool:
        """Whether the weights are these integers, in compressed-tensors folders of others too."""
        described = config.get("quantization_config") or {}
        if described.get("quant_method") == METHOD:
            return True
        groups = (described.get("config_groups") or {}).values()
        return (
            described.get("quant_method") == STOCK_METHOD
            and described.get("format") == "int-quantized"
            and bool(groups)
            and all(_is_same_scheme(group) for group in groups)
        )

    @classmethod
    @override
    def from_config(cls, config: JsonMapping) -> "QuantizedFormat":
        described = config["quantization_config"]
        if described["quant_method"] == STOCK_METHOD:
            return cls(kind="int8", embeddings="float32")
        if described.get("embeddings") != "int8":
            raise CheckpointError(
                "config.json: quantization_config.embeddings is "
                f"{described.get('embeddings')!r}; expected 'int8'"
            )
        return cls(kind="int8")


def _is_same_scheme(group: JsonMapping) -> bool:
    weights = group.get("weights") or {}
    inputs = group.get("input_activations") or {}
    return (
        group.get("targets") == ["Linear"]
        and (weights.get("num_bits"), weights.get("strategy")) == (8, "channel")
        and (inputs.get("num_bits"), inputs.get("strategy")) == (8, "token")
        and bool(weights.get("symmetric", True) and inputs.get("symmetric", True))
    )
