"""Tokens drawn from logits, in numpy: a device that only answers has no torch.

The twin of `limbeck.models.generation.draw_tokens`, with a generator for each answer instead of one
for all: an answer that was drawn among others is drawn again alone.
"""

from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Float, Int

from limbeck.contracts.parity import log_softmax


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
        return tokens, log_softmax(logits)[np.arange(len(tokens)), tokens]


def draw_tokens(
    logits: Float[np.ndarray, "rows vocab"],
    *,
    uniform: Float[np.ndarray, " rows"],
    temperature: float,
) -> Int[np.ndarray, " rows"]:
    """A token for each row, by inverting the distribution function at that temperature."""
    scaled = logits.astype(np.float64) / temperature
    sums = np.exp(scaled - scaled.max(axis=-1, keepdims=True)).cumsum(axis=-1)
    wanted = uniform * sums[:, -1]
    # The first token whose sum lies above what is wanted, so that one without mass is never drawn.
    return (sums <= wanted[:, None]).sum(axis=-1).clip(max=logits.shape[1] - 1)
