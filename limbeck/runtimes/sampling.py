"""Tokens drawn from logits, in numpy: a device that only answers has no torch.

The twin of `limbeck.models.generation.draw_tokens`, with a generator for each answer instead of one
for all: an answer that was drawn among others is drawn again alone.
"""

from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float, Int

BLOCK = 512
"""Tokens of a block, about the square root of a large vocabulary."""


@final
class Sampler:
    """Draws the next token of each answer, from a generator of its own."""

    def __init__(self, seeds: Sequence[int], *, temperature: float) -> None:
        self._generators = [np.random.default_rng(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(
        self, requests: Sequence[int], logits: Float[np.ndarray, "rows vocab"]
    ) -> tuple[Int[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
        """A token for each row, and its log-probability at temperature 1.

        `requests` are the places of the rows' seeds.
        """
        uniform = np.array([self._generators[request].random() for request in requests])
        tokens = draw_tokens(logits, uniform=uniform, temperature=self._temperature)
        largest = logits.max(axis=-1)
        total = np.exp(logits - largest[:, None]).sum(axis=-1)
        return tokens, logits[np.arange(len(tokens)), tokens] - largest - np.log(total)


def draw_tokens(
    logits: Float[np.ndarray, "rows vocab"],
    *,
    uniform: Float[np.ndarray, " rows"],
    temperature: float,
) -> Int[np.ndarray, " rows"]:
    """A token for each row, by inverting the distribution function at that temperature.

    First over sums of blocks, then inside one: the only pass over all tokens is that of their
    exponentials.
    """
    num_blocks = -(-logits.shape[1] // BLOCK)
    weights = np.zeros((len(logits), num_blocks * BLOCK), logits.dtype)
    filled = weights[:, : logits.shape[1]]
    np.subtract(logits, logits.max(axis=-1, keepdims=True), out=filled)
    np.exp(np.divide(filled, temperature, out=filled), out=filled)
    blocks = weights.reshape(len(logits), num_blocks, BLOCK)
    rows = np.arange(len(logits))
    sums = blocks.sum(axis=-1, dtype=np.float64).cumsum(axis=-1)
    wanted = uniform * sums[:, -1]
    block, before = _invert(sums, wanted)
    inside = blocks[rows, block].astype(np.float64)
    place, _ = _invert(inside.cumsum(axis=-1), wanted - before)
    # Sums of one block in two orders differ in the last bits: what has no mass is never drawn.
    last = BLOCK - 1 - (inside[:, ::-1] > 0).argmax(axis=-1)
    return block * BLOCK + np.minimum(place, last)


def _invert(
    sums: Float[np.ndarray, "rows places"], wanted: Float[np.ndarray, " rows"]
) -> tuple[Int[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """The first place of each row whose sum lies above what is wanted, and the sum before it."""
    place = (sums <= wanted[:, None]).sum(axis=-1).clip(max=sums.shape[1] - 1)
    before = np.take_along_axis(np.pad(sums, ((0, 0), (1, 0))), place[:, None], axis=-1)
    return place, before[:, 0]
