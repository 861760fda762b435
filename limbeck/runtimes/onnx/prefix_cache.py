"""Keys and values of what was read before: a prompt that begins alike is not read again.

The turns of a conversation, and requests with the same long instructions, share a prefix.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int

RowCache = list[Float[np.ndarray, "1 heads tokens width"]]
"""Of one row: keys and values of every layer."""
LEAST_SHARED_TOKENS = 32
"""A shorter prefix is read again with the others, in one batch."""


@dataclass(frozen=True)
class _Known:
    owner: str
    tokens: Int[np.ndarray, " tokens"]
    cache: RowCache

    @property
    def num_bytes(self) -> int:
        return sum(item.nbytes for item in self.cache)


@dataclass(frozen=True)
class Prefix:
    """The first tokens of a prompt, read before."""

    num_tokens: int
    cache: RowCache


@final
class PrefixCache:
    """The latest rows, as many as fit into so many bytes."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._known: OrderedDict[tuple[str, bytes], _Known] = OrderedDict()
        self.num_bytes = 0

    def put(self, tokens: Sequence[int], cache: RowCache, *, owner: str = "") -> None:
        """Remembers a row for its owner; what was not met for longest is forgotten for it."""
        num_bytes = sum(item.nbytes for item in cache)
        if len(tokens) < LEAST_SHARED_TOKENS or num_bytes > self._max_bytes:
            return
        known = _Known(owner, np.array(tokens, np.int64), [item.copy() for item in cache])
        key = owner, known.tokens.tobytes()
        self._forget(key)
        self._known[key] = known
        self.num_bytes += known.num_bytes
        while self.num_bytes > self._max_bytes:
            self._forget(next(iter(self._known)))

    def find(self, tokens: Sequence[int], *, owner: str = "") -> Prefix | None:
        """The longest prefix of a prompt that its owner's rows left; its last token is read."""
        if len(tokens) <= LEAST_SHARED_TOKENS:
            return None
        prompt = np.array(tokens[:-1], np.int64)
        best, length = ("", b""), 0
        for key, known in self._known.items():
            shared = _count_shared(known.tokens, prompt) if known.owner == owner else 0
            if shared > length:
                best, length = key, shared
        if length < LEAST_SHARED_TOKENS:
            return None
        self._known.move_to_end(best)
        return Prefix(length, [item[:, :, :length] for item in self._known[best].cache])

    def _forget(self, key: tuple[str, bytes]) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self.num_bytes -= known.num_bytes


def _count_shared(first: Int[np.ndarray, " first"], second: Int[np.ndarray, " second"]) -> int:
    """How many tokens two texts begin with alike."""
    size = min(len(first), len(second))
    differ = np.flatnonzero(first[:size] != second[:size])
    return int(differ[0]) if len(differ) else size
