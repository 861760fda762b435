"""Which records share a row, so that a step's micro-batches hold next to no padding."""

import heapq

import numpy as np
from jaxtyping import Int

MOST_PADDED_RATIO = 0.05
"""Padding of a step, as a share of its tokens, that shorter rows are worth."""


def pack_parts(lengths: Int[np.ndarray, " records"], *, num_parts: int) -> list[list[list[int]]]:
    """The records of each micro-batch's rows: the shortest rows that need little padding.

    Short rows, for attention's work grows with a row's length; one row a micro-batch needs no
    padding at all, so there is always an answer.
    """
    num_parts = min(num_parts, len(lengths))
    num_rows = max(1, int(lengths.sum() // lengths.max()) // num_parts)
    while True:
        rows = fill_rows(lengths, num_rows=num_rows * num_parts)
        widths = [int(lengths[row].sum()) for row in rows]
        ordered = [rows[place] for place in np.argsort(widths, kind="stable").tolist()]
        padded = num_rows * sum(sorted(widths)[num_rows - 1 :: num_rows])
        if num_rows == 1 or padded <= (1 + MOST_PADDED_RATIO) * lengths.sum():
            return [ordered[part * num_rows :][:num_rows] for part in range(num_parts)]
        num_rows //= 2


def fill_rows(lengths: Int[np.ndarray, " records"], *, num_rows: int) -> list[list[int]]:
    """Which records share a row, so that rows are about as long: the longest record first.

    The longest row is at most 4/3 as long as it has to be (Graham 1969, doi:10.1137/0117039).
    """
    rows: list[list[int]] = [[] for _ in range(num_rows)]
    filled = [(0, row) for row in range(num_rows)]
    for record in np.argsort(-lengths, kind="stable").tolist():
        length, row = heapq.heappop(filled)
        rows[row].append(record)
        heapq.heappush(filled, (length + int(lengths[record]), row))
    return rows
