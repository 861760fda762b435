"""Floating-point formats: weights as they are, without scales."""

import abc
from typing import ClassVar, Literal, final

from typing_extensions import override

from limbeck.contracts.json_data import JsonMapping
from limbeck.contracts.parity import Tolerance
from limbeck.quantization.formats.base import Format

ROUNDING = Tolerance(measure="max_logit_difference / max_logit", limit=1e-4)
"""Both sides compute in float32 and differ only in the order of sums: 1e-6 is usual, a wrong graph
is far above."""


class FloatFormat(Format, abc.ABC):
    """Base of both: no blocks, and embeddings like everything else."""

    tolerance: ClassVar[Tolerance] = ROUNDING
    dtype: ClassVar[str]
    """What `config.json` calls it."""

    @property
    @override
    def block(self) -> None:
        return None

    @property
    @override
    def embedding_format(self) -> str:
        return self.kind

    @classmethod
    @override
    def matches(cls, config: JsonMapping) -> bool:
        return _dtype(config) == cls.dtype


@final
class Float32(FloatFormat):
    """32-bit floats: what models are trained in."""

    kind: Literal["float32"]
    bits: ClassVar[float] = 32
    dtype: ClassVar[str] = "float32"


@final
class BFloat16(FloatFormat):
    """16-bit floats of float32's range: what checkpoints are mostly published in."""

    kind: Literal["bfloat16"]
    bits: ClassVar[float] = 16
    dtype: ClassVar[str] = "bfloat16"


def _dtype(config: JsonMapping) -> str:
    if config.get("quantization_config"):
        return ""
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")
