"""What every way to store targets offers, and gaps between logits in a few bits each."""

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from limbeck.contracts.config import Config
from limbeck.distillation.targets import SparseOutput

Arrays = Mapping[str, np.ndarray]
Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Names to the type of an array and its shape after the first axis."""
PACKED = "packed"
"""Bytes without a first axis over positions: each position has as many as it needs."""


class Codec(Config):
    """Base of every way to store what a teacher says."""

    @abstractmethod
    def layout(self, vocab: int) -> Layout:
        """The arrays of a shard."""

    @abstractmethod
    def encode(
        self, logits: Float[Tensor, "kept vocab"], *, generator: torch.Generator
    ) -> dict[str, np.ndarray]:
        """The arrays for logits relative to each position's largest one."""

    @abstractmethod
    def widths(self, arrays: Arrays, *, vocab: int) -> Int[np.ndarray, " kept"]:
        """How many of the packed bytes each position has; empty where there are none."""

    @abstractmethod
    def decode(self, arrays: Arrays, *, vocab: int, temperature: float) -> SparseOutput:
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


def quantise(
    gaps: Float[np.ndarray, "kept tokens"], *, bits: int
) -> tuple[Int[np.ndarray, "kept tokens"], Float[np.ndarray, " kept"]]:
    """Gaps, none below 0, as steps of each position's own widest gap, and that gap."""
    widest = gaps.max(axis=1, initial=0.0).astype(np.float16)
    # Float16 may round down; the next larger number holds every gap.
    short = widest < gaps.max(axis=1, initial=0.0)
    widest = np.where(short, np.nextafter(widest, np.float16(np.inf)), widest)
    most = (1 << bits) - 1
    unit = np.maximum(widest.astype(np.float32), 1e-30)[:, None]
    return np.rint(gaps / unit * most).clip(0, most).astype(np.int64), widest


def restore(
    steps: Int[np.ndarray, "kept tokens"], widest: Float[np.ndarray, " kept"], *, bits: int
) -> Float[np.ndarray, "kept tokens"]:
    """Gaps of their steps."""
    unit = widest.astype(np.float32) / ((1 << bits) - 1)
    return steps.astype(np.float32) * unit[:, None]
