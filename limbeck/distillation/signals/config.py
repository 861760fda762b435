"""Settings of storing a teacher's distributions."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from jaxtyping import Int
from pydantic import Field, field_validator
from typing_extensions import override

from limbeck.contracts.config import Config
from limbeck.distillation.signals.bit_packing import num_bits, packed_bytes

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

    from limbeck.distillation.targets import ImportanceSampled, SparseOutput, TopK

HiddenPrecision = Literal["float16", "int8"]
KNOTS = (8.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.7, 0.5)
"""Temperatures at which sums over all other tokens are stored, exact up to rounding."""


Arrays = Mapping[str, np.ndarray]


ArrayLayout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Names to the type of an array and its shape after the first axis."""


PACKED = "packed"
"""Bytes without a first axis over positions: each position has as many as it needs."""


class Codec(Config):
    """Base of every way to store a teacher's distribution."""

    @abstractmethod
    def layout(self, vocab: int) -> ArrayLayout:
        """The arrays of a shard."""

    @abstractmethod
    def encode(
        self, logits: "Float[Tensor, 'kept vocab']", *, generator: "torch.Generator"
    ) -> dict[str, np.ndarray]:
        """The arrays for logits relative to each position's largest one."""

    @abstractmethod
    def widths(self, arrays: Arrays, *, vocab: int) -> Int[np.ndarray, " kept"]:
        """How many of the packed bytes each position has; empty where there are none."""

    @abstractmethod
    def decode(self, arrays: Arrays, *, vocab: int, temperature: float) -> "SparseOutput":
        """The targets at a temperature."""

    @abstractmethod
    def reference_temperature(self) -> float:
        """The temperature at which what is stored is compared with the teacher."""

    @abstractmethod
    def known_temperatures(self) -> tuple[float, ...] | None:
        """The temperatures at which targets can be read; None for any."""

    def refuse(self, temperature: float) -> str:
        """Why targets cannot be read at this temperature; empty where they can."""
        known = self.known_temperatures()
        if known is None or temperature in known:
            return ""
        return (
            f"signals were recorded for temperature {list(known)}, the objective wants "
            f"{temperature!r}; record it too, or record `targets: {{kind: top}}`, which any "
            "temperature can read"
        )


class Plain(Codec):
    """The likeliest tokens at full width, for the temperatures named."""

    kind: Literal["plain"]
    count: Annotated[int, Field(gt=0)] = 16
    """Tokens kept per position; the mass of all others is kept as one number."""
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        1.0,
        2.0,
    )
    """Temperatures that students may use."""

    @override
    def layout(self, vocab: int) -> ArrayLayout:
        count = min(self.count, vocab)
        return {
            "logits": ("<f2", (count,)),
            "ids": ("<i4", (count,)),
            "tail": ("<f4", (len(self.temperatures),)),
        }

    @override
    def encode(
        self, logits: "Float[Tensor, 'kept vocab']", *, generator: "torch.Generator"
    ) -> dict[str, np.ndarray]:
        from limbeck.distillation.signals import top_k_float

        return top_k_float.encode(self, logits, generator=generator)

    @override
    def widths(self, arrays: Arrays, *, vocab: int) -> Int[np.ndarray, " kept"]:
        return np.zeros(0, dtype=np.int64)

    @override
    def decode(self, arrays: Arrays, *, vocab: int, temperature: float) -> "TopK":
        from limbeck.distillation.signals import top_k_float

        return top_k_float.decode(self, arrays, vocab=vocab, temperature=temperature)

    @override
    def reference_temperature(self) -> float:
        return self.temperatures[0]

    @override
    def known_temperatures(self) -> tuple[float, ...]:
        return self.temperatures


class TopTokens(Codec):
    """The likeliest tokens, and the mass of all others at any temperature."""

    kind: Literal["top"]
    count: Annotated[int, Field(gt=0)] = 24
    """Tokens kept per position; the mass of all others is kept as one bucket."""
    bits: Annotated[int, Field(ge=4, le=12)] = 8
    """Bits of one logit."""

    @override
    def layout(self, vocab: int) -> ArrayLayout:
        count = min(self.count, vocab)
        return {
            "ids": ("|u1", (packed_bytes(count, bits=num_bits(vocab)),)),
            "gaps": ("|u1", (packed_bytes(count, bits=self.bits),)),
            "widest": ("<f2", ()),
            "tail": ("<u2", (len(KNOTS),)),
        }

    @override
    def encode(
        self, logits: "Float[Tensor, 'kept vocab']", *, generator: "torch.Generator"
    ) -> dict[str, np.ndarray]:
        from limbeck.distillation.signals import top_k_packed

        return top_k_packed.encode(self, logits, generator=generator)

    @override
    def widths(self, arrays: Arrays, *, vocab: int) -> Int[np.ndarray, " kept"]:
        return np.zeros(0, dtype=np.int64)

    @override
    def decode(self, arrays: Arrays, *, vocab: int, temperature: float) -> "TopK":
        from limbeck.distillation.signals import top_k_packed

        return top_k_packed.decode(self, arrays, vocab=vocab, temperature=temperature)

    @override
    def reference_temperature(self) -> float:
        return 1.0

    @override
    def known_temperatures(self) -> None:
        return None


class SampledTokens(Codec):
    """Tokens drawn by importance, each with the weight that makes sums unbiased."""

    kind: Literal["sampled"]
    count: Annotated[int, Field(gt=0, le=255)] = 20
    """Draws per position; tokens drawn twice take no more room."""
    power: Annotated[float, Field(gt=0)] = 1.0
    """Tokens are drawn in proportion to p to this power; 1 / T suits a student trained at T."""
    bits: Annotated[int, Field(ge=4, le=12)] = 8
    """Bits of one logit."""

    @field_validator("power")
    @classmethod
    def _check_power(cls, power: float) -> float:
        known = [1.0 / knot for knot in KNOTS]
        for value in known:
            if math.isclose(power, value, rel_tol=1e-2):
                return value
        raise ValueError(f"power is {power}, expected one of {[round(item, 3) for item in known]}")

    @override
    def layout(self, vocab: int) -> ArrayLayout:
        return {
            PACKED: ("|u1", ()),
            "drawn": ("|u1", ()),
            "widest": ("<f2", ()),
            "rest": ("<u2", (len(KNOTS),)),
        }

    @override
    def encode(
        self, logits: "Float[Tensor, 'kept vocab']", *, generator: "torch.Generator"
    ) -> dict[str, np.ndarray]:
        from limbeck.distillation.signals import importance_sampled

        return importance_sampled.encode(self, logits, generator=generator)

    @override
    def widths(self, arrays: Arrays, *, vocab: int) -> Int[np.ndarray, " kept"]:
        from limbeck.distillation.signals import importance_sampled

        return importance_sampled.widths(self, arrays, vocab=vocab)

    @override
    def decode(self, arrays: Arrays, *, vocab: int, temperature: float) -> "ImportanceSampled":
        from limbeck.distillation.signals import importance_sampled

        return importance_sampled.decode(self, arrays, vocab=vocab, temperature=temperature)

    @override
    def reference_temperature(self) -> float:
        return 1.0 / self.power

    @override
    def known_temperatures(self) -> None:
        return None
