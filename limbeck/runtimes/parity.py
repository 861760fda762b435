"""How far one runtime's next-token predictions lie from another's.

Compared over whole prompts at once and token by token through the cache, in batches of uneven
length, because an error in any of these ways would be invisible to the others.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from limbeck.contracts.parity import LogitDifference, compare_logits
from limbeck.runtimes.base import LoadedModel

BATCH = 4
NUM_CACHED_STEPS = 8


def compare(
    reference: LoadedModel, candidate: LoadedModel, *, prompts: Sequence[Sequence[int]]
) -> LogitDifference:
    """The candidate's distance from the reference over all positions of the prompts and after."""
    models = (reference, candidate)
    batches = (prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH))
    return compare_logits(
        pair for rows in batches for pair in (*_whole(models, rows), *_stepwise(models, rows))
    )


LogitPair = tuple[np.ndarray, np.ndarray]


def _whole(models: Sequence[LoadedModel], rows: Sequence[Sequence[int]]) -> Iterator[LogitPair]:
    reference, candidate = (model.compute_logits(rows, start=0) for model in models)
    yield from zip(reference, candidate, strict=True)


def _stepwise(models: Sequence[LoadedModel], rows: Sequence[Sequence[int]]) -> Iterator[LogitPair]:
    """Both continue with the reference's choices, so one disagreement does not hide the rest."""
    limit = min(model.max_tokens for model in models) - max(map(len, rows))
    sessions = [model.open_session(num_slots=len(rows)) for model in models]
    reference, candidate = (session.admit(rows).logits for session in sessions)
    yield reference, candidate
    for _ in range(min(NUM_CACHED_STEPS, limit)):
        tokens = reference.argmax(axis=-1).tolist()
        reference, candidate = (session.step(tokens) for session in sessions)
        yield reference, candidate
