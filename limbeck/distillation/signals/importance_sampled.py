"""Tokens drawn from the teacher, so that sums over them estimate sums over all without bias.

Random sampling knowledge distillation (Anshumann et al. 2025, arXiv:2503.16870): `count` draws
from q, proportional to p^power; a token drawn c times weighs c / count * p / q. One draw is made
in each of `count` equal slices of q, which varies less than free draws do and has the same mean. A
position holds its distinct tokens only, bit by bit: id, draws, and the gap below the largest logit;
and, to normalise at any temperature, the mass of all others at the knots of `log_partition.py`.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from limbeck.distillation.signals import log_partition
from limbeck.distillation.signals.bit_packing import num_bits, pack_at, unpack_at
from limbeck.distillation.signals.codec import quantise, restore
from limbeck.distillation.signals.config import PACKED, Arrays, SampledTokens
from limbeck.distillation.targets import ImportanceSampled


def sample_stratified(
    logits: Float[Tensor, "kept vocab"], *, count: int, generator: torch.Generator
) -> Int[Tensor, "kept count"]:
    """`count` samples from each position's softmax, one in each equal slice of its mass."""
    ends = (logits - logits.max(dim=-1, keepdim=True).values).double().exp().cumsum(dim=-1)
    offsets = torch.rand(len(logits), count, generator=generator, dtype=torch.float64)
    places = (torch.arange(count) + offsets).to(ends.device) / count
    found = torch.searchsorted(ends, places * ends[:, -1:], right=True)
    return found.clamp(max=logits.shape[1] - 1)


def encode(
    codec: SampledTokens, logits: Float[Tensor, "kept vocab"], *, generator: torch.Generator
) -> dict[str, np.ndarray]:
    """See `Codec.encode`."""
    ids = sample_stratified(logits * codec.power, count=codec.count, generator=generator)
    ordered = ids.sort(dim=1).values
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    gaps, widest = quantise(-logits.gather(1, ordered).cpu().numpy(), bits=codec.bits)
    first = starts.cpu().numpy()
    drawn = first.sum(axis=1)
    chosen = np.flatnonzero(first)
    times = np.diff(np.append(chosen, first.size))
    fields = (ordered.cpu().numpy()[first], times - 1, gaps[first])
    places, widths = _places(codec, drawn, vocab=logits.shape[1])
    packed = np.zeros(int(widths.sum()) * 8, dtype=np.uint8)
    for values, bits, offset in zip(fields, *_fields(codec, logits.shape[1]), strict=True):
        pack_at(packed, places + offset, values, bits=bits)
    return {
        PACKED: np.packbits(packed, bitorder="little"),
        "drawn": drawn.astype(np.uint8),
        "widest": widest,
        "rest": log_partition.measure(logits.scatter(1, ids, -torch.inf)),
    }


def decode(
    codec: SampledTokens, arrays: Arrays, *, vocab: int, temperature: float
) -> ImportanceSampled:
    """See `Codec.decode`."""
    drawn = arrays["drawn"].astype(np.int64)
    places, _ = _places(codec, drawn, vocab=vocab)
    held = np.arange(drawn.max(initial=1)) < drawn[:, None]
    found: list[UInt8[np.ndarray, "kept drawn"]] = []
    for bits, offset in zip(*_fields(codec, vocab), strict=True):
        field = np.zeros(held.shape, dtype=np.int32)
        field[held] = unpack_at(arrays[PACKED], places + offset, bits=bits)
        found.append(field)
    ids, times, steps = found
    gaps = restore(steps, arrays["widest"], bits=codec.bits)

    def total(at: float) -> Float[np.ndarray, "kept 1"]:
        rest = log_partition.read(arrays["rest"], num_tokens=vocab - drawn, temperature=at)
        own = np.log((np.exp(-gaps / np.float32(at)) * held).sum(axis=1))
        return np.logaddexp(own, rest)[:, None]

    logs = -gaps / np.float32(temperature) - total(temperature)
    shares = (times + 1) * held / np.float32(codec.count)
    if math.isclose(codec.power * temperature, 1.0):
        weights = shares
    else:
        weights = shares * np.exp(logs + codec.power * gaps + total(1.0 / codec.power))
    return ImportanceSampled(
        torch.from_numpy(ids).long(),
        torch.from_numpy(weights.astype(np.float32)),
        torch.from_numpy(logs.astype(np.float32)),
        temperature,
    )


def _fields(codec: SampledTokens, vocab: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bits of id, draws and gap, and where each starts in a token's bits."""
    bits = (num_bits(vocab), num_bits(codec.count), codec.bits)
    return bits, (0, bits[0], bits[0] + bits[1])


def _places(
    codec: SampledTokens, drawn: Int[np.ndarray, " kept"], *, vocab: int
) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " kept"]]:
    """The bit at which every token starts, and the bytes of every position."""
    bits = sum(_fields(codec, vocab)[0])
    widths = -(-drawn * bits // 8)
    starts = (widths.cumsum() - widths) * 8 - (drawn.cumsum() - drawn) * bits
    return np.repeat(starts, drawn) + np.arange(int(drawn.sum())) * bits, widths


def widths(codec: SampledTokens, arrays: Arrays, *, vocab: int) -> Int[np.ndarray, " kept"]:
    """See `Codec.widths`."""
    return _places(codec, arrays["drawn"].astype(np.int64), vocab=vocab)[1]
