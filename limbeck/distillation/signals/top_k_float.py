"""The likeliest tokens as float16 and int32, the mass of all others at chosen temperatures."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.distillation.signals.config import Arrays, Plain
from limbeck.distillation.targets import TopK


def encode(
    codec: Plain, logits: Float[Tensor, "kept vocab"], *, generator: torch.Generator
) -> dict[str, np.ndarray]:
    """See `Codec.encode`."""
    values, ids = logits.topk(min(codec.count, logits.shape[1]), dim=-1)
    others = logits.scatter(1, ids, -torch.inf)
    tails = [(others / temperature).logsumexp(dim=-1) for temperature in codec.temperatures]
    # An empty rest has mass zero; its logarithm is kept finite.
    tail = torch.stack(tails, dim=1).clamp(min=-1e4)
    return {
        "logits": values.half().cpu().numpy(),
        "ids": ids.to(torch.int32).cpu().numpy(),
        "tail": tail.cpu().numpy(),
    }


def decode(codec: Plain, arrays: Arrays, *, vocab: int, temperature: float) -> TopK:
    """See `Codec.decode`."""
    place = codec.temperatures.index(temperature)
    return TopK(
        torch.from_numpy(arrays["logits"]).float(),
        torch.from_numpy(arrays["ids"]).long(),
        torch.from_numpy(np.ascontiguousarray(arrays["tail"][:, place])),
        temperature,
    )
