"""How far one runtime's next-token predictions lie from another's.

Compared over whole prompts at once and token by token through the cache, in batches of uneven
length, because an error in any of these ways would be invisible to the others.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from limbeck.contracts.parity import Difference, compare_logits
from limbeck.runtimes.greedy import Steps

BATCH = 4
NUM_CACHED_STEPS = 8


def compare(reference: Steps, candidate: Steps, *, prompts: Sequence[Sequence[int]]) -> Difference:
    """The candidate's distance from the reference over all positions of the prompts and after."""
    batches = (prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH))
    return compare_logits(
        pair
        for rows in batches
        for pair in (*_whole(reference, candidate, rows), *_stepwise(reference, candidate, rows))
    )


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
