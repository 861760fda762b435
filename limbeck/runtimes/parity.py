"""How far one model's next-token predictions lie from another's.

Compared over whole prompts at once and token by token through the cache, in batches of uneven
length, because an error in any of these ways would be invisible to the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from limbeck.runtimes.greedy import Steps, log_softmax

BATCH = 4
NUM_CACHED_STEPS = 8


@dataclass
class Difference:
    """Differences of next-token logits, gathered over positions."""

    num_positions: int = 0
    max_logit_difference: float = 0.0
    mean_logit_difference: float = 0.0
    max_logit: float = 0.0
    argmax_agreement_ratio: float = 0.0
    mean_kl: float = 0.0


def compare(reference: Steps, candidate: Steps, *, prompts: Sequence[Sequence[int]]) -> Difference:
    """The candidate's distance from the reference over all positions of the prompts and after."""
    found = Difference()
    for start in range(0, len(prompts), BATCH):
        rows = prompts[start : start + BATCH]
        for pair in (*_whole(reference, candidate, rows), *_stepwise(reference, candidate, rows)):
            _gather(found, *pair)
    for field in ("mean_logit_difference", "argmax_agreement_ratio", "mean_kl"):
        setattr(found, field, float(getattr(found, field) / max(found.num_positions, 1)))
    return found


Pair = tuple[np.ndarray, np.ndarray]


def _whole(reference: Steps, candidate: Steps, rows: Sequence[Sequence[int]]) -> Iterator[Pair]:
    yield from zip(reference.compute(rows, start=0), candidate.compute(rows, start=0), strict=True)


def _stepwise(reference: Steps, candidate: Steps, rows: Sequence[Sequence[int]]) -> Iterator[Pair]:
    """Both continue with the reference's choices, so one disagreement does not hide the rest."""
    limit = min(reference.max_tokens, candidate.max_tokens) - max(map(len, rows))
    expected, left = reference.start(rows)
    found, right = candidate.start(rows)
    yield expected, found
    for _ in range(min(NUM_CACHED_STEPS, limit)):
        tokens = expected.argmax(axis=-1)
        expected = reference.advance(tokens, left)
        found = candidate.advance(tokens, right)
        yield expected, found


def _gather(
    total: Difference,
    expected: Float[np.ndarray, "positions vocab"],
    found: Float[np.ndarray, "positions vocab"],
) -> None:
    difference = np.abs(expected - found)
    logs = log_softmax(expected)
    kl = (np.exp(logs) * (logs - log_softmax(found))).sum(axis=-1)
    total.num_positions += len(expected)
    # Not np.maximum of the totals: a NaN must stay visible.
    total.max_logit_difference = float(np.max([total.max_logit_difference, difference.max()]))
    total.max_logit = float(np.max([total.max_logit, np.abs(expected).max()]))
    total.mean_logit_difference += float(difference.mean(axis=-1).sum())
    total.argmax_agreement_ratio += float((expected.argmax(-1) == found.argmax(-1)).sum())
    total.mean_kl += float(np.maximum(kl, 0.0).sum())
