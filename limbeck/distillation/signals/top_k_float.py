"""The likeliest tokens as float16 and int32, the mass of all others at chosen temperatures."""

from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from limbeck.distillation.signals.codec import Arrays, Codec, Layout
from limbeck.distillation.targets import TopK


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
    def layout(self, vocab: int) -> Layout:
        count = min(self.count, vocab)
        return {
            "logits": ("<f2", (count,)),
            "ids": ("<i4", (count,)),
            "tail": ("<f4", (len(self.temperatures),)),
        }

    @override
    def encode(
        self, logits: Float[Tensor, "kept vocab"], *, generator: torch.Generator
    ) -> dict[str, np.ndarray]:
        values, ids = logits.topk(min(self.count, logits.shape[1]), dim=-1)
        others = logits.scatter(1, ids, -torch.inf)
        tails = [(others / temperature).logsumexp(dim=-1) for temperature in self.temperatures]
        # An empty rest has mass zero; its logarithm is kept finite.
        tail = torch.stack(tails, dim=1).clamp(min=-1e4)
        return {
            "logits": values.half().cpu().numpy(),
            "ids": ids.to(torch.int32).cpu().numpy(),
            "tail": tail.cpu().numpy(),
        }

    @override
    def widths(self, arrays: Arrays, *, vocab: int) -> Int[np.ndarray, " kept"]:
        return np.zeros(0, dtype=np.int64)

    @override
    def decode(self, arrays: Arrays, *, vocab: int, temperature: float) -> TopK:
        place = self.temperatures.index(temperature)
        return TopK(
            torch.from_numpy(arrays["logits"]).float(),
            torch.from_numpy(arrays["ids"]).long(),
            torch.from_numpy(np.ascontiguousarray(arrays["tail"][:, place])),
            temperature,
        )

    @override
    def reference_temperature(self) -> float:
        return self.temperatures[0]

    @override
    def known_temperatures(self) -> tuple[float, ...]:
        return self.temperatures
