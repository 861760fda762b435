"""What a model takes in each number format, and which format reaches a budget of bytes."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FormatSize:
    """Bytes of a whole model in one format."""

    name: str
    total_bytes: int
    embedding_bytes: int
    """Of embeddings and language head, stated apart because they are easily forgotten."""
    embedding_format: str
    expert_bytes: int
    """Of routed experts, of which a token reads only those that it picks."""
    lookup_bytes: int
    """Of tables of which a token reads one row: input embeddings that are not the head too."""


@dataclass(frozen=True)
class BudgetFit:
    """Which number format brings a model under a budget of bytes."""

    budget_bytes: int
    bits_per_parameter: float
    """What the budget allows, over all parameters."""
    number_format: str
    """The most precise one that fits, or the smallest where none does."""
    kept_ratio: float
    """Share of the parameters outside the embeddings that may stay in that format; 1 where all
    fit, 0 where the embeddings alone are too large."""
    total_bytes: int
    """With what is kept, or with the embeddings alone."""


def fit_budget(formats: Sequence[FormatSize], *, parameters: int, budget_bytes: int) -> BudgetFit:
    """How a model reaches a budget of bytes: a number format, and perhaps a smaller share of it.

    6 B parameters in 1.8 GB are 2.4 bits each, so 2-bit integers; 3 B in 500 MB are 1.33, less
    than the two bits of stored ternary weights, so two fifths of the parameters have to go as well.
    """
    assert parameters > 0
    assert budget_bytes > 0
    bits = budget_bytes * 8 / parameters
    for item in formats:
        if item.total_bytes <= budget_bytes:
            return BudgetFit(budget_bytes, bits, item.name, 1.0, item.total_bytes)
    smallest = formats[-1]
    table, body = smallest.embedding_bytes, smallest.total_bytes - smallest.embedding_bytes
    kept = max(0.0, (budget_bytes - table) / body)
    return BudgetFit(budget_bytes, bits, smallest.name, kept, table + int(kept * body))
