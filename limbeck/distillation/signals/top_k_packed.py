"""The likeliest tokens in a few bits each, and a tail that any temperature can read.

A position holds its ids at ceil(log2 V) bits, its logits as gaps below the largest in `bits` bits
of the widest gap, and the mass of all other tokens at the knots of `log_partition.py`.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.distillation.signals import log_partition
from limbeck.distillation.signals.bit_packing import num_bits, pack, unpack
from limbeck.distillation.signals.codec import quantise, restore
from limbeck.distillation.signals.config import Arrays, TopTokens
from limbeck.distillation.targets import TopK


def encode(
    codec: TopTokens, logits: Float[Tensor, "kept vocab"], *, generator: torch.Generator
) -> dict[str, np.ndarray]:
    """See `Codec.encode`."""
    vocab = logits.shape[1]
    values, ids = logits.topk(min(codec.count, vocab), dim=-1)
    steps, widest = quantise(-values.cpu().numpy(), bits=codec.bits)
    return {
        "ids": pack(ids.cpu().numpy(), bits=num_bits(vocab)),
        "gaps": pack(steps, bits=codec.bits),
        "widest": widest,
        "tail": log_partition.measure(logits.scatter(1, ids, -torch.inf)),
    }


def decode(codec: TopTokens, arrays: Arrays, *, vocab: int, temperature: float) -> TopK:
    """See `Codec.decode`."""
    count = min(codec.count, vocab)
    ids = unpack(arrays["ids"], count=count, bits=num_bits(vocab))
    steps = unpack(arrays["gaps"], count=count, bits=codec.bits)
    gaps = restore(steps, arrays["widest"], bits=codec.bits)
    tail = log_partition.read(
        arrays["tail"], num_tokens=np.asarray([vocab - count]), temperature=temperature
    )
    return TopK(
        torch.from_numpy(np.negative(gaps, out=gaps)),
        torch.from_numpy(ids).long(),
        torch.from_numpy(tail),
        temperature,
    )
