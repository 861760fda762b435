"""Splits by group, never by row, and the check that training and measuring share no question.

Two groups that ask one question in the same words are one group here. Left out: which groups there
are; the sources say so.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import Field

from limbeck.contracts.config import Config
from limbeck.contracts.errors import LeakError
from limbeck.contracts.records import Question, Record
from limbeck.data.filters.normalization.zh import normalise

HASH_SPAN = 2**64


class SplitConfig(Config):
    """How much is held out; the rest is training data."""

    validation_ratio: Annotated[float, Field(ge=0, lt=0.5)] = 0.02
    test_ratio: Annotated[float, Field(ge=0, lt=0.5)] = 0.02


def split(records: Sequence[Record], *, config: SplitConfig, seed: int) -> dict[str, list[Record]]:
    """The records as train, validation and test; a group's fate hangs on its hash alone."""
    roots = _merge_groups(records)
    splits: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
    for record in records:
        digest = hashlib.sha256(f"{seed}:{_find(roots, record.group)}".encode()).digest()
        draw = int.from_bytes(digest[:8], "big") / HASH_SPAN
        if draw < config.test_ratio:
            splits["test"].append(record)
        elif draw < config.test_ratio + config.validation_ratio:
            splits["validation"].append(record)
        else:
            splits["train"].append(record)
    return splits


def question_key(record: Record) -> str:
    """What a record asks, whatever its spacing, punctuation and width; '' for plain text.

    About an image, the question is what the image is: many images are asked about in one way.
    """
    if record.images:
        return ""
    return normalise("".join((*record.history, record.question)))


def check_leaks(
    train: Iterable[Record], *, held_out: Iterable[Record], questions: Iterable[Question]
) -> None:
    """Nothing, when no question text, image or group of training stands in what is held out.

    Raises:
        LeakError: one does, with both places.
    """
    texts: dict[str, Record] = {}
    groups: dict[str, Record] = {}
    images: dict[str, Record] = {}
    for record in train:
        if key := question_key(record):
            texts.setdefault(key, record)
        if record.group:
            groups.setdefault(record.group, record)
        for image in record.images:
            images.setdefault(image, record)
    for record in held_out:
        _raise_if(texts.get(question_key(record)), record.question, where=f"record {record.id}")
        _raise_if(groups.get(record.group), record.group, where=f"record {record.id}")
        for image in record.images:
            _raise_if(images.get(image), image, where=f"record {record.id}")
    for question in questions:
        where = f"{question.task} question {question.id}"
        for image in question.images:
            _raise_if(images.get(image), image, where=where)
        if not question.images:
            _raise_if(texts.get(normalise(question.question)), question.question, where=where)
        _raise_if(groups.get(question.group), question.group, where=where)


def _raise_if(record: Record | None, shared: str, *, where: str) -> None:
    if record is not None:
        raise LeakError(
            f"training record {record.id} ({record.place or record.source}) and {where} share "
            f"{shared!r}; remove it from one of the two sources, or name another seed"
        )


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
