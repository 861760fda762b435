"""Which token follows: pure functions of logits, settings and a random number."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from limbeck.contracts.parity import log_softmax
from limbeck.serving.engine.messages import Sampling

MIN_TEMPERATURE = 1e-3
"""Below it, dividing by the temperature overflows, and the likeliest token is drawn anyway."""


def choose_token(
    log_probs: Float[np.ndarray, " vocab"], *, sampling: Sampling, uniform: float
) -> int:
    """The token that a uniform random number of [0, 1) draws.

    Top-k comes first, then top-p of what is left (nucleus sampling, Holtzman et al. 2020,
    arXiv:1904.09751, sec. 3.1), as vLLM and transformers have it.
    """
    if sampling.temperature < MIN_TEMPERATURE:
        return int(log_probs.argmax())
    order = likeliest(log_probs, count=sampling.top_k or len(log_probs))
    probs = np.exp(log_softmax(log_probs[order] / sampling.temperature))
    total = probs.cumsum()
    num_kept = int(np.searchsorted(total, sampling.top_p)) + 1
    total = total[:num_kept]
    return int(
        order[min(int(np.searchsorted(total, uniform * total[-1], side="right")), num_kept - 1)]
    )


def likeliest(log_probs: Float[np.ndarray, " vocab"], *, count: int) -> np.ndarray:
    """So many tokens in falling order of their probability; of equal ones the first comes first."""
    count = min(count, len(log_probs))
    if count < len(log_probs):
        chosen = np.sort(np.argpartition(-log_probs, count - 1)[:count])
        return chosen[np.argsort(-log_probs[chosen], kind="stable")]
    return np.argsort(-log_probs, kind="stable")


def make_generators(seed: int, *, num_choices: int) -> Sequence[np.random.Generator]:
    """One source of random numbers for each answer to a request."""
    return [np.random.default_rng((seed, choice)) for choice in range(num_choices)]
