"""Decoding as a session with slots: rows join and leave while others go on.

A batch of questions, sampling for training and a server are the same session, filled in different
ways. Left out: which token follows, which the loops over a session choose. This module needs no
torch, so that a device that only answers does not either.
"""

import abc
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

Logits = TypeVar("Logits")
"""An array of one row of next-token logits for each row of tokens."""


@dataclass(frozen=True)
class Admitted(Generic[Logits]):
    """The slots of new rows, and the logits after their prompts."""

    slots: tuple[int, ...]
    logits: Logits
    num_known: tuple[int, ...] = ()
    """Of each slot's prompt, the first tokens that were not read again; () where none is kept."""


class Session(abc.ABC, Generic[Logits]):
    """A model with a KV cache for so many rows at once; a free slot costs no computation."""

    def __init__(self, *, num_slots: int) -> None:
        self.num_slots = num_slots
        self._slots: list[int] = []

    @property
    def slots(self) -> tuple[int, ...]:
        """The slots in use, in the order of a step's tokens and logits."""
        return tuple(self._slots)

    @property
    def num_free(self) -> int:
        """Rows that may still be admitted."""
        return self.num_slots - len(self._slots)

    def admit(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        images: Sequence[Path] = (),
        num_copies: int = 1,
        owners: Sequence[str] = (),
    ) -> Admitted[Logits]:
        """Reads prompts into free slots, each into so many, prompt after prompt.

        `images` are those of all prompts, in reading order. A prompt is computed once, whatever
        the number of its copies. What is kept of an owner's rows serves that owner's prompts only:
        from the time that it saves others could tell what was asked.
        """
        num_rows = len(prompts) * num_copies
        if not 0 < num_rows <= self.num_free:
            raise ValueError(f"{num_rows} rows: expected 1 to {self.num_free}, the free slots")
        logits = self._prefill(
            prompts, images=images, num_copies=num_copies, owners=owners or [""] * len(prompts)
        )
        num_known = tuple(n for n in self._num_known() for _ in range(num_copies))
        free = [slot for slot in range(self.num_slots) if slot not in self._slots][:num_rows]
        self._slots += free
        return Admitted(tuple(free), logits, num_known)

    def step(self, tokens: Sequence[int]) -> Logits:
        """Logits after one more token of each row, in the order of `slots`."""
        if len(tokens) != len(self._slots) or not tokens:
            raise ValueError(f"{len(tokens)} tokens for {len(self._slots)} rows: expected one each")
        return self._decode(tokens)

    def evict(self, slots: Collection[int]) -> None:
        """Frees slots; the other rows keep their order."""
        if unknown := set(slots) - set(self._slots):
            raise ValueError(f"slots {sorted(unknown)} are free")
        kept = [row for row, slot in enumerate(self._slots) if slot not in slots]
        if len(kept) < len(self._slots):
            self._keep_rows(kept)
            self._slots = [self._slots[row] for row in kept]

    def _num_known(self) -> Sequence[int]:
        """Of each prompt that was computed last, the tokens that had been read before."""
        return ()

    @abc.abstractmethod
    def _prefill(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        images: Sequence[Path],
        num_copies: int,
        owners: Sequence[str],
    ) -> Logits:
        """Computes prompts and appends their rows to the cache; logits of the new rows."""

    @abc.abstractmethod
    def _decode(self, tokens: Sequence[int]) -> Logits:
        """Computes one more token of every row; logits of all rows."""

    @abc.abstractmethod
    def _keep_rows(self, rows: Sequence[int]) -> None:
        """Drops all other rows from the cache."""
