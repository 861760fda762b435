"""Log of summed exp(logit / T) at any temperature, from its values at a few.

As a function of b = 1 / T it is smooth and convex, and at b = 0 it is the logarithm of the number
of tokens. Stored values are whole numbers of 2^-10 in 16 bits; between two knots the cubic through
the four nearest ones is read.
"""

import numpy as np
import torch
from jaxtyping import Float, Int, UInt16
from torch import Tensor

from limbeck.distillation.signals.config import KNOTS

STEPS = 1024.0
LOWEST = -50.0
"""A smaller sum is stored as this; the highest storable one is 14, above ln 1,000,000."""
EMPTY = -1e4
"""Log of an empty sum, kept finite."""
NEAREST = 4


def measure(logits: Float[Tensor, "kept tokens"]) -> UInt16[np.ndarray, "kept knots"]:
    """The stored sums of logits that are relative to the largest; -inf leaves a token out."""
    sums = torch.stack([(logits / knot).logsumexp(dim=-1) for knot in KNOTS], dim=1)
    steps = (sums.double().clamp(LOWEST, -LOWEST) - LOWEST).mul(STEPS).round().cpu().numpy()
    return np.minimum(steps, 65535).astype(np.uint16)


def read(
    stored: UInt16[np.ndarray, "kept knots"],
    *,
    num_tokens: Int[np.ndarray, " #kept"],
    temperature: float,
) -> Float[np.ndarray, " kept"]:
    """The sums at a temperature, over so many tokens; `EMPTY` over none."""
    first, others = _weights(temperature)
    sums = stored.astype(np.float32) @ (others / STEPS).astype(np.float32)
    constant = first * np.log(np.maximum(1, num_tokens)) + float(others.sum()) * LOWEST
    found = sums + constant.astype(np.float32)
    return np.where(num_tokens > 0, found, np.float32(EMPTY))


def _weights(temperature: float) -> tuple[float, Float[np.ndarray, " knots"]]:
    """What the sum at b = 0 and each stored one count for."""
    at = 1.0 / temperature
    places = np.asarray([0.0, *(1.0 / knot for knot in KNOTS)])
    weights = np.zeros(len(places))
    if at > places[-1]:
        # Sums grow along a straight line once a single token makes them up.
        slope = (at - places[-1]) / (places[-1] - places[-2])
        weights[-2:] = -slope, 1.0 + slope
    else:
        first = int(np.searchsorted(places, at)) - NEAREST // 2
        first = min(max(0, first), len(places) - NEAREST)
        near = places[first : first + NEAREST]
        for index, place in enumerate(near):
            rest = np.delete(near, index)
            weights[first + index] = np.prod((at - rest) / (place - rest))
    return float(weights[0]), weights[1:]
