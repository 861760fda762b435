"""INT8: per-channel weights and per-token activations, both as integers (W8A8).

A weight row has one float32 scale, absmax / 127; an activation row gets its own at run time, so
nothing is calibrated. Absmax scales never clip, so no clipped range needs its gradient stopped.

The folder keeps the tensor names of compressed-tensors' "int-quantized" format: `<module>.weight`
int8, `<module>.weight_scale` [out, 1]. With float embeddings it *is* that format, which stock
transformers reads. With int8 embeddings it calls itself `limbeck-int8`, because those
readers leave embeddings alone and would look up integers as if they were weights.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from jaxtyping import Int8 as Int8Tensor
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.contracts.parity import Tolerance
from limbeck.quantization.formats.base import QuantizedFormat, QuantizedTensor

LEVELS = 127
"""Integers run from -127 to 127: symmetric, so zero is exact and signs cost nothing."""
SMALLEST_ABSMAX = 1e-10
"""Keeps the scale of an all-zero row finite."""
EXACT_TERMS = 1040
"""Products of two int8 that float32 can add without rounding: 1040 * 127 * 127 < 2 ** 24."""
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
    def quantize(self, weight: Float[Tensor, "*rows columns"]) -> QuantizedTensor:
        scale = absmax_scales(weight)
        codes = round_to_steps(weight.detach(), scale).to(torch.int8)
        return QuantizedTensor(codes, scale, weight.shape[-1])

    @override
    def dequantize(self, stored: QuantizedTensor) -> Float[Tensor, "*rows columns"]:
        return stored.codes.float() * stored.scale

    @override
    def fake(self, weight: Float[Tensor, "*rows columns"]) -> Float[Tensor, "*rows columns"]:
        scales = absmax_scales(weight)
        return (fake_round(weight, scales) * scales).to(weight.dtype)

    @override
    def multiply(
        self, x: Float[Tensor, "rows columns"], *, weight: QuantizedTensor
    ) -> Float[Tensor, "rows out"]:
        scales = absmax_scales(x)
        integers = round_to_steps(x, scales).to(torch.int8)
        return multiply_integers(integers, weight.codes) * weight.scale.t() * scales

    @override
    def fake_multiply(
        self, x: Float[Tensor, "*rows columns"], *, weight: Float[Tensor, "out columns"]
    ) -> Float[Tensor, "*rows out"]:
        # The product is taken between whole numbers and scaled afterwards, as the integer layer
        # does: float32 adds up to 1040 such products exactly, so up to that width both agree bit
        # for bit (beyond it they differ by float32 rounding of partial sums above 2 ** 24). Under
        # autocast the product follows autocast's precision: whole numbers up to 127 are exact in
        # bfloat16.
        x_scales, scales = absmax_scales(x), absmax_scales(weight)
        product = functional.linear(fake_round(x, x_scales), fake_round(weight, scales))
        return product.float() * scales.t() * x_scales

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


def absmax_scales(x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows 1"]:
    """The float32 step of each row: its largest magnitude becomes 127."""
    return x.detach().float().abs().amax(dim=-1, keepdim=True).clamp_min(SMALLEST_ABSMAX) / LEVELS


def round_to_steps(
    x: Float[Tensor, "*rows channels"], scales: Float[Tensor, "*rows 1"]
) -> Float[Tensor, "*rows channels"]:
    """Integers, as float32: the nearest multiple of each row's step, halves to even."""
    return torch.round(x.float() / scales)


def fake_round(
    x: Float[Tensor, "*rows channels"], scales: Float[Tensor, "*rows 1"]
) -> Float[Tensor, "*rows channels"]:
    """Whole numbers of steps; the gradient is that of x / scales, scales being constants."""
    steps = x.float() / scales
    return steps + (round_to_steps(x, scales) - steps).detach()


def multiply_integers(
    left: Int8Tensor[Tensor, "rows terms"], right: Int8Tensor[Tensor, "columns terms"]
) -> Float[Tensor, "rows columns"]:
    """left @ right.T, exactly, as float32: in int32 where the CPU has instructions for that."""
    # One term makes the strides of right.T ambiguous, which torch's kernel mistakes.
    if left.device.type == "cpu" and left.shape[1] > 1 and torch.cpu._is_vnni_supported():
        return torch._int_mm(left, right.t()).float()
    return multiply_in_float32(left, right)


def multiply_in_float32(
    left: Int8Tensor[Tensor, "rows terms"], right: Int8Tensor[Tensor, "columns terms"]
) -> Float[Tensor, "rows columns"]:
    """left @ right.T where int8 products restrict the shapes, or are slower than float ones.

    Without such instructions torch's int8 product takes 7 to 27 times as long at 64 rows. Runs of
    terms are short enough for float32 to add them exactly.
    """
    total = torch.zeros(left.shape[0], right.shape[0], device=left.device)
    for start in range(0, left.shape[1], EXACT_TERMS):
        part = slice(start, start + EXACT_TERMS)
        total += left[:, part].float() @ right[:, part].float().t()
    return total
