"""Splits by group, never by row.

Two groups that ask one question in the same words are one group here. Left out: which groups there
are; the sources say so.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from limbeck.contracts.config import Config
from limbeck.contracts.leaks import LeakIndex, question_key
from limbeck.contracts.records import Record, Split
from limbeck.data.filters.in_evaluation import IN_EVALUATION
from limbeck.data.filters.record_log import RecordLog

logger = logging.getLogger(__name__)

HASH_SPAN = 2**64
NONE_STATED: Mapping[str, Split] = MappingProxyType({})
LEAST_RECORDS, MOST_EXCESS_RATIO = 100, 0.1
"""Of fewer records, chance holds out this much more as well."""


class SplitConfig(Config):
    """How much is held out; the rest is training data."""

    validation_ratio: Annotated[float, Field(ge=0, lt=0.5)] = 0.02
    test_ratio: Annotated[float, Field(ge=0, lt=0.5)] = 0.02


def split(
    records: Sequence[Record],
    *,
    config: SplitConfig,
    seed: int,
    stated: Mapping[str, Split] = NONE_STATED,
) -> dict[Split, list[Record]]:
    """The records as train, validation and test; a group's fate hangs on its hash alone, but for
    the records of sources whose split is stated.
    """
    splits: dict[Split, list[Record]] = {"train": [], "validation": [], "test": []}
    for record in records:
        if record.source in stated:
            splits[stated[record.source]].append(record)
    records = [record for record in records if record.source not in stated]
    roots = _merge_groups(records)
    for record in records:
        draw = draw_ratio(f"{seed}:{_find(roots, record.group)}")
        if draw < config.test_ratio:
            splits["test"].append(record)
        elif draw < config.test_ratio + config.validation_ratio:
            splits["validation"].append(record)
        else:
            splits["train"].append(record)
    held_out: dict[Split, float] = {
        "test": config.test_ratio,
        "validation": config.validation_ratio,
    }
    for name, ratio in held_out.items():
        drawn = [record for record in splits[name] if record.source not in stated]
        _warn_of_excess(drawn, name=name, ratio=ratio, num_records=len(records))
    return splits


def drop_asked(
    records: Sequence[Record], *, stated: Mapping[str, Split], log: RecordLog
) -> Iterator[Record]:
    """The records, but for those that ask what a source asks whose split is stated."""
    asked = LeakIndex(record for record in records if record.source in stated)
    for record in records:
        if record.source not in stated and asked.find(record):
            log.drop_record(record, reason=IN_EVALUATION)
        else:
            yield record


def _warn_of_excess(
    records: Sequence[Record], *, name: Split, ratio: float, num_records: int
) -> None:
    """Log that far more is held out than asked for, because many records are one group."""
    if num_records < LEAST_RECORDS or len(records) <= (ratio + MOST_EXCESS_RATIO) * num_records:
        return
    group, count = Counter(record.group for record in records).most_common(1)[0]
    logger.warning(
        "the %s split holds %d of %d records, where %.0f %% were asked for: %d of them begin with "
        "one question, %r, and stay together; take a greeting out of the file, or set another seed",
        name,
        len(records),
        num_records,
        100 * ratio,
        count,
        group[:60],
    )


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
