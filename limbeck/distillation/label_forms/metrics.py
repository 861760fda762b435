"""What the metrics of `label` say of pairs of answers and of log-probabilities."""

from collections import Counter
from collections.abc import Sequence

from limbeck.contracts.errors import DataError
from limbeck.distillation.endpoint.labeler import Labelled

MAX_LISTED_TOKENS = 20
"""Tokens without an equal that the metrics name."""


def describe_pairs(items: Sequence[Labelled]) -> dict[str, object]:
    """How many questions have a better and a worse answer, and why others have none.

    Raises:
        DataError: none has.
    """
    pairs = sum(bool(item.record.rejected) for item in items)
    if not pairs:
        raise DataError(
            "no question got two answers of which one is better; raise write.temperature or "
            "write.samples, or compare them by other rewards"
        )
    reasons = Counter(item.without_pair for item in items if item.without_pair)
    return {"pairs": pairs, "without_pair": dict(reasons)}


def describe_log_probs(items: Sequence[Labelled], *, min_aligned_ratio: float) -> dict[str, object]:
    """How many returned tokens are aligned with the corpus's tokenizer, and which are not.

    Raises:
        DataError: too few are.
    """
    labels = [item.labels for item in items if item.labels is not None]
    missed: Counter[str] = sum((Counter(item.missed) for item in labels), Counter())
    num_returned = sum(item.num_returned for item in labels)
    num_aligned = sum(item.num_aligned for item in labels)
    if num_aligned < min_aligned_ratio * num_returned:
        raise DataError(
            f"{num_aligned:,} of {num_returned:,} tokens that the server returned are aligned with "
            "the corpus's tokenizer, candidates without an equal are "
            f"{dict(missed.most_common(5))}; lower write.min_aligned_ratio, or where the model is "
            "of another family, write answers instead"
        )
    return {
        "returned_places": num_returned,
        "aligned_places": num_aligned,
        "missed_candidates": missed.total(),
        "missed_tokens": dict(missed.most_common(MAX_LISTED_TOKENS)),
    }
