"""Number formats: the bits of a weight with its scales, and which format reaches a budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class NumberFormat:
    """How matrices are stored; norms, biases and gates stay float32 in formats below 16 bits."""

    name: str
    bits: float
    block: int = 0
    """Weights of a row that share a scale; 0 is the whole row."""
    scale_bits: int = 0
    """0 where nothing is scaled."""
    embeddings: str = ""
    """Format of embeddings and language head, where another one is usual."""

    def num_bits(self, *, rows: int, columns: int) -> float:
        """Bits of a matrix with its scales."""
        blocks = math.ceil(columns / self.block) if self.block else 1
        return rows * (columns * self.bits + blocks * self.scale_bits)

    @property
    def bits_per_weight(self) -> float:
        """Bits of one weight in long rows, with its share of the block's scale."""
        return self.bits + (self.scale_bits / self.block if self.block else 0.0)


FORMATS = (
    NumberFormat("float32", 32.0),
    NumberFormat("bfloat16", 16.0),
    NumberFormat("int8", 8.0, scale_bits=32),
    NumberFormat("int4", 4.0, block=128, scale_bits=16),
    NumberFormat("int2", 2.0, block=128, scale_bits=16, embeddings="int4"),
    NumberFormat("ternary", 1.6, block=256, scale_bits=16, embeddings="int4"),
)
"""Most precise first. Ternary packs five digits of base 3 into eight bits."""


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
class Fit:
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


def what_fits(formats: Sequence[FormatSize], *, parameters: int, budget_bytes: int) -> Fit:
    """How a model reaches a budget of bytes: a number format, and perhaps a smaller share of it.

    6 B parameters in 1.8 GB are 2.4 bits each, so 2-bit integers; 3 B in 500 MB are 1.33, less
    than ternary needs, so a fifth of the parameters has to go as well.
    """
    assert parameters > 0
    assert budget_bytes > 0
    bits = budget_bytes * 8 / parameters
    for item in formats:
        if item.total_bytes <= budget_bytes:
            return Fit(budget_bytes, bits, item.name, 1.0, item.total_bytes)
    smallest = formats[-1]
    table, body = smallest.embedding_bytes, smallest.total_bytes - smallest.embedding_bytes
    kept = max(0.0, (budget_bytes - table) / body)
    return Fit(budget_bytes, bits, smallest.name, kept, table + int(kept * body))
