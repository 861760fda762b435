"""The likeliest tokens in a few bits each, and a tail that any temperature can read.

A position holds its ids at ceil(log2 V) bits, its logits as gaps below the largest in `bits` bits
of the widest gap, and the mass of all other tokens at the knots of `log_partition.py`.
"""

from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from limbeck.distillation.signals import log_partition
from limbeck.distillation.signals.bit_packing import num_bits, pack, packed_bytes, unpack
from limbeck.distillation.signals.codec import Arrays, Codec, Layout, quantise, restore
from limbeck.distillation.targets import TopK


class TopTokens(Codec):
    """The likeliest tokens, and the mass of all others at any temperature."""

    kind: Literal["top"]
    count: Annotated[int, Field(gt=0)] = 24
    """Tokens kept per position; the mass of all others is kept as one bucket."""
    bits: Annotated[int, Field(ge=4, le=12)] = 8
    """Bits of one logit."""

    @override
    def layout(self, vocab: int) -> Layout:
        count = min(self.count, vocab)
        return {
            "ids": ("|u1", (packed_bytes(count, bits=num_bits(vocab)),)),
            "gaps": ("|u1", (packed_bytes(count, bits=self.bits),)),
            "widest": ("<f2", ()),
            "tail": ("<u2", (len(log_partition.KNOTS),)),
        }

    @override
    def encode(
        self, logits: Float[Tensor, "kept vocab"], *, generator: torch.Generator
    ) -> dict[str, np.ndarray]:
        vocab = logits.shape[1]
        values, ids = logits.topk(min(self.count, vocab), dim=-1)
        steps, widest = quantise(-values.cpu().numpy(), bits=self.bits)
        return {
            "ids": pack(ids.cpu().numpy(), bits=num_bits(vocab)),
            "gaps": pack(steps, bits=self.bits),
            "widest": widest,
            "tail": log_partition.measure(logits.scatter(1, ids, -torch.inf)),
        }

    @override
    def widths(self, arrays: Arrays, *, vocab: int) -> Int[np.ndarray, " kept"]:
        return np.zeros(0, dtype=np.int64)

    @override
    def decode(self, arrays: Arrays, *, vocab: int, temperature: float) -> TopK:
        count = min(self.count, vocab)
        ids = unpack(arrays["ids"], count=count, bits=num_bits(vocab))
        steps = unpack(arrays["gaps"], count=count, bits=self.bits)
        gaps = restore(steps, arrays["widest"], bits=self.bits)
        tail = log_partition.read(
            arrays["tail"], num_tokens=np.asarray([vocab - count]), temperature=temperature
        )
        return TopK(
            torch.from_numpy(np.negative(gaps, out=gaps)),
            torch.from_numpy(ids).long(),
            torch.from_numpy(tail),
            temperature,
        )

    @override
    def reference_temperature(self) -> float:
        return 1.0

    @override
    def known_temperatures(self) -> None:
        return None
