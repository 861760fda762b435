"""Tokens drawn from the teacher, so that sums over them estimate sums over all without bias.

Random sampling knowledge distillation (Anshumann et al. 2025, arXiv:2503.16870): `count` draws
from q, proportional to p^power; a token drawn c times weighs c / count * p / q. One draw is made
in each of `count` equal slices of q, which varies less than free draws do and has the same mean. A
position holds its distinct tokens only, bit by bit: id, draws, and the gap below the largest logit;
and, to normalise at any temperature, the mass of all others at the knots of `log_partition.py`.
"""

import math
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from pydantic import Field, field_validator
from torch import Tensor
from typing_extensions import override

from limbeck.distillation.signals import log_partition
from limbeck.distillation.signals.bit_packing import num_bits, pack_at, unpack_at
from limbeck.distillation.signals.codec import PACKED, Arrays, Codec, Layout, quantise, restore
from limbeck.distillation.targets import ImportanceSampled


class SampledTokens(Codec):
    """Tokens drawn by importance, each with the weight that makes sums unbiased."""

    kind: Literal["sampled"]
    count: Annotated[int, Field(gt=0, le=255)] = 20
    """Draws per position; tokens drawn twice take no more room."""
    power: Annotated[float, Field(gt=0)] = 1.0
    """Tokens are drawn in proportion to p to this power; 1 / T suits a student that reads T."""
    bits: Annotated[int, Field(ge=4, le=12)] = 8
    """Bits of one logit."""

    @field_validator("power")
    @classmethod
    def _check_power(cls, power: float) -> float:
        known = [1.0 / knot for knot in log_partition.KNOTS]
        for value in known:
            if math.isclose(power, value, rel_tol=1e-2):
                return value
        raise ValueError(f"power is {power}, expected one of {[round(item, 3) for item in known]}")

    @override
    def layout(self, vocab: int) -> Layout:
        return {
            PACKED: ("|u1", ()),
            "drawn": ("|u1", ()),
            "widest": ("<f2", ()),
            "rest": ("<u2", (len(log_partition.KNOTS),)),
        }

    @override
    def encode(
        self, logits: Float[Tensor, "kept vocab"], *, generator: torch.Generator
    ) -> dict[str, np.ndarray]:
        ids = draw(logits * self.power, count=self.count, generator=generator)
        ordered = ids.sort(dim=1).values
        starts = torch.ones_like(ordered, dtype=torch.bool)
        starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        gaps, widest = quantise(-logits.gather(1, ordered).cpu().numpy(), bits=self.bits)
        first = starts.cpu().numpy()
        drawn = first.sum(axis=1)
        chosen = np.flatnonzero(first)
        times = np.diff(np.append(chosen, first.size))
        fields = (ordered.cpu().numpy()[first], times - 1, gaps[first])
        places, widths = self._places(drawn, vocab=logits.shape[1])
        packed = np.zeros(int(widths.sum()) * 8, dtype=np.uint8)
        for values, bits, offset in zip(fields, *self._fields(logits.shape[1]), strict=True):
            pack_at(packed, places + offset, values, bits=bits)
        return {
            PACKED: np.packbits(packed, bitorder="little"),
            "drawn": drawn.astype(np.uint8),
            "widest": widest,
            "rest": log_partition.measure(logits.scatter(1, ids, -torch.inf)),
        }

    def _fields(self, vocab: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Bits of id, draws and gap, and where each starts in a token's bits."""
        bits = (num_bits(vocab), num_bits(self.count), self.bits)
        return bits, (0, bits[0], bits[0] + bits[1])

    def _places(
        self, drawn: Int[np.ndarray, " kept"], *, vocab: int
    ) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " kept"]]:
        """The bit at which every token starts, and the bytes of every position."""
        bits = sum(self._fields(vocab)[0])
        widths = -(-drawn * bits // 8)
        starts = (widths.cumsum() - widths) * 8 - (drawn.cumsum() - drawn) * bits
        return np.repeat(starts, drawn) + np.arange(int(drawn.sum())) * bits, widths

    @override
    def widths(self, arrays: Arrays, *, vocab: int) -> Int[np.ndarray, " kept"]:
        return self._places(arrays["drawn"].astype(np.int64), vocab=vocab)[1]

    @override
    def decode(self, arrays: Arrays, *, vocab: int, temperature: float) -> ImportanceSampled:
        drawn = arrays["drawn"].astype(np.int64)
        places, _ = self._places(drawn, vocab=vocab)
        held = np.arange(drawn.max(initial=1)) < drawn[:, None]
        found: list[UInt8[np.ndarray, "kept drawn"]] = []
        for bits, offset in zip(*self._fields(vocab), strict=True):
            field = np.zeros(held.shape, dtype=np.int32)
            field[held] = unpack_at(arrays[PACKED], places + offset, bits=bits)
            found.append(field)
        ids, times, steps = found
        gaps = restore(steps, arrays["widest"], bits=self.bits)

        def total(at: float) -> Float[np.ndarray, "kept 1"]:
            rest = log_partition.read(arrays["rest"], num_tokens=vocab - drawn, temperature=at)
            own = np.log((np.exp(-gaps / np.float32(at)) * held).sum(axis=1))
            return np.logaddexp(own, rest)[:, None]

        logs = -gaps / np.float32(temperature) - total(temperature)
        shares = (times + 1) * held / np.float32(self.count)
        if math.isclose(self.power * temperature, 1.0):
            weights = shares
        else:
            weights = shares * np.exp(logs + self.power * gaps + total(1.0 / self.power))
        return ImportanceSampled(
            torch.from_numpy(ids).long(),
            torch.from_numpy(weights.astype(np.float32)),
            torch.from_numpy(logs.astype(np.float32)),
            temperature,
        )

    @override
    def reference_temperature(self) -> float:
        return 1.0 / self.power

    @override
    def known_temperatures(self) -> None:
        return None


def draw(
    logits: Float[Tensor, "kept vocab"], *, count: int, generator: torch.Generator
) -> Int[Tensor, "kept count"]:
    """So many draws from each position's softmax, one in each equal slice of its mass."""
    ends = (logits - logits.max(dim=-1, keepdim=True).values).double().exp().cumsum(dim=-1)
    offsets = torch.rand(len(logits), count, generator=generator, dtype=torch.float64)
    places = (torch.arange(count) + offsets).to(ends.device) / count
    found = torch.searchsorted(ends, places * ends[:, -1:], right=True)
    return found.clamp(max=logits.shape[1] - 1)
