"""Splits by group, never by row.

Two groups that ask one question in the same words are one group here. Left out: which groups there
are; the sources say so.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field

from limbeck.contracts.config import Config
from limbeck.contracts.leaks import question_key
from limbeck.contracts.records import Record, Split

HASH_SPAN = 2**64


class SplitConfig(Config):
    """How much is held out; the rest is training data."""

    validation_ratio: Annotated[float, Field(ge=0, lt=0.5)] = 0.02
    test_ratio: Annotated[float, Field(ge=0, lt=0.5)] = 0.02


def split(
    records: Sequence[Record], *, config: SplitConfig, seed: int
) -> dict[Split, list[Record]]:
    """The records as train, validation and test; a group's fate hangs on its hash alone."""
    roots = _merge_groups(records)
    splits: dict[Split, list[Record]] = {"train": [], "validation": [], "test": []}
    for record in records:
        draw = draw_ratio(f"{seed}:{_find(roots, record.group)}")
        if draw < config.test_ratio:
            splits["test"].append(record)
        elif draw < config.test_ratio + config.validation_ratio:
            splits["validation"].append(record)
        else:
            splits["train"].append(record)
    return splits


def draw_ratio(text: str) -> float:
    """A number from 0 to below 1 that is the same for a text each time."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") / HASH_SPAN


def _merge_groups(records: Iterable[Record]) -> dict[str, str]:
    """Union-find parents: groups that share a question or image have one root, the least name."""
    parents: dict[str, str] = {}
    first: dict[str, str] = {}
    for record in records:
        parents.setdefault(record.group, record.group)
        for key in record.images or (question_key(record),):
            if not key:
                continue
            left = _find(parents, first.setdefault(key, record.group))
            right = _find(parents, record.group)
            low, high = min(left, right), max(left, right)
            parents[high] = low
    return parents


def _find(parents: dict[str, str], group: str) -> str:
    while parents[group] != group:
        parents[group] = parents[parents[group]]
        group = parents[group]
    return group
