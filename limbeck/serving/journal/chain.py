"""The hashes that chain the journal: pure functions, with no database behind them.

    content_hash = SHA-256(JSON of the content, its random salt included)
    hash         = SHA-256(JSON of [seq, id, kind, exchange id, time, content_hash, previous hash])

A row holds both, so erasing its content leaves the chain whole, and what stays tells nothing of it:
without the salt, which is erased too, no guess at a short question can be checked against its hash.
"""

import dataclasses
from dataclasses import dataclass

from limbeck.contracts.artifacts import hash_text
from limbeck.contracts.json_data import JsonMapping
from limbeck.serving.journal.entries import canonical_json

FIRST_HASH = "0" * 64
"""Stands for the row before the first one."""


@dataclass(frozen=True)
class Head:
    """The last row of a chain: how many there are, and its hash."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


@dataclass(frozen=True)
class Link:
    """One row of the chain without its content."""

    seq: int
    id: str
    kind: str
    exchange_id: str
    time_us: int
    content_hash: str
    previous_hash: str
    hash: str

    def compute_hash(self) -> str:
        """What `hash` has to be."""
        parts = [self.seq, self.id, self.kind, self.exchange_id, self.time_us]
        return _sha256(canonical_json([*parts, self.content_hash, self.previous_hash]))


def hash_content(content: JsonMapping) -> str:
    """The hash of what can be erased."""
    return _sha256(canonical_json(dict(content)))


def make_link(
    head: Head, *, entry_id: str, kind: str, exchange_id: str, time_us: int, content: JsonMapping
) -> Link:
    """The row that follows the head."""
    link = Link(
        seq=head.seq + 1,
        id=entry_id,
        kind=kind,
        exchange_id=exchange_id,
        time_us=time_us,
        content_hash=hash_content(content),
        previous_hash=head.hash,
        hash="",
    )
    return dataclasses.replace(link, hash=link.compute_hash())


def _sha256(text: str) -> str:
    return hash_text(text)
