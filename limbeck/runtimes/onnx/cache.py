"""Keys and values of the rows of a session, in buffers that the graph extends in place.

A graph that is given one array and returns a longer one copies all of it at every token. Left out:
which rows there are, and what they hold.
"""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from jaxtyping import Float

LEAST_SPARE_TOKENS = 32
"""Of a buffer beyond what its longest row needs; a quarter of that where it is more."""
Caches = Sequence[Float[np.ndarray, "_ heads _ head_dim"]]
"""Of every layer its keys, then its values."""


@final
class RowCaches:
    """Rows in their order, wherever in the buffers they lie: whoever leaves moves one other row."""

    def __init__(self, *, num_caches: int, num_heads: int, head_dim: int) -> None:
        self._shape = num_heads, head_dim
        self._buffers = [np.zeros((0, num_heads, 0, head_dim), np.float32)] * num_caches
        self.places = np.zeros(0, np.int64)
        """Where the rows lie."""
        self.binding: Any = None
        """Where a graph finds the buffers; None after they have changed."""

    def views(self) -> list[Float[np.ndarray, "rows heads _ head_dim"]]:
        """The buffers of all rows, in the order of `places`."""
        return [buffer[: len(self.places)] for buffer in self._buffers]

    def row(self, row: int, *, length: int) -> list[Float[np.ndarray, "1 heads _ head_dim"]]:
        """The first tokens of a row; no copy."""
        place = self.places[row]
        return [buffer[place : place + 1, :, :length] for buffer in self._buffers]

    def reserve(self, *, num_tokens: int) -> None:
        """Makes room for so many tokens in every row."""
        self._grow(num_rows=len(self.places), num_tokens=num_tokens)

    def add(self, caches: Caches, *, num_copies: int) -> None:
        """Appends rows, each so many times."""
        num_rows, _, num_tokens, _ = caches[0].shape
        begin = len(self.places)
        end = begin + num_rows * num_copies
        self._grow(num_rows=end, num_tokens=num_tokens)
        for buffer, cache in zip(self._buffers, caches, strict=True):
            buffer[begin:end, :, :num_tokens] = np.repeat(cache, num_copies, axis=0)
        self.places = np.append(self.places, np.arange(begin, end))
        self.binding = None

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows."""
        places = self.places[list(rows)]
        moving = np.flatnonzero(places >= len(places))
        free = np.setdiff1d(np.arange(len(places)), places)
        for buffer in self._buffers if len(moving) else ():
            buffer[free] = buffer[places[moving]]
        places[moving] = free
        self.places, self.binding = places, None
        if not len(places):
            heads, head_dim = self._shape
            empty = np.zeros((0, heads, 0, head_dim), np.float32)
            self._buffers = [empty] * len(self._buffers)

    def bind(self, make: Callable[[], Any]) -> Any:
        """What `make` tells a graph of the buffers, once for each change of them."""
        if self.binding is None:
            self.binding = make()
        return self.binding

    def _grow(self, *, num_rows: int, num_tokens: int) -> None:
        rows, heads, tokens, head_dim = self._buffers[0].shape
        if num_rows <= rows and num_tokens <= tokens:
            return
        if num_tokens > tokens:
            num_tokens += max(LEAST_SPARE_TOKENS, num_tokens // 4)
        num_rows = max(num_rows, rows)
        shape = num_rows, heads, max(num_tokens, tokens), head_dim
        used = len(self.places)
        for index, old in enumerate(self._buffers):
            self._buffers[index] = np.zeros(shape, np.float32)
            self._buffers[index][:used, :, :tokens] = old[:used]
        self.binding = None
