"""What became of every record, source by source: read, kept, changed or dropped for a reason.

What was read equals what was kept and what was dropped, for every source.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.records import Change, Drop, Reason, Record

Example = TypeVar("Example", Drop, Change)
SHOWN_CHARS = 80
NUM_EXAMPLES = 3
CHARS_BEFORE = 16
"""Text shown in front of the place where a change begins."""


@dataclass
class SourceCounts:
    """What became of the records of one source."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    """By the reason; a record that several rules changed counts for each of them."""
    drops: dict[str, list[Drop]] = field(default_factory=dict)
    """The first ones of each reason."""
    changes: dict[str, list[Change]] = field(default_factory=dict)
    """The first ones of each reason, cut to where the texts differ."""
    notes: JsonObject = field(default_factory=dict)


class RecordLog:
    """Counts per source, and a file with a line for every drop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sources: dict[str, SourceCounts] = {}
        self.reasons: dict[str, Reason] = {}
        """Every reason that was met, by its key."""
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace")

    def __enter__(self) -> "RecordLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def source(self, label: str) -> SourceCounts:
        """The counts of a source, made on first use."""
        return self.sources.setdefault(label, SourceCounts())

    def drop(self, drop: Drop) -> None:
        """Count one drop and write it to the file."""
        self.reasons[drop.reason.key] = drop.reason
        counts = self.source(drop.source)
        counts.dropped[drop.reason.key] += 1
        _keep_example(counts.drops, drop.reason, drop)
        line = {
            "reason": drop.reason.key,
            "source": drop.source,
            "place": drop.place,
            "detail": drop.detail,
        }
        self._file.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")

    def drop_record(self, record: Record, *, reason: Reason, detail: str = "") -> None:
        """Count one record as dropped and write down where it stood."""
        shown = detail or (record.question or record.answer)[:SHOWN_CHARS]
        self.drop(Drop(reason=reason, source=record.source, place=record.place, detail=shown))

    def change(self, change: Change) -> None:
        """Count one record as changed by one rule."""
        self.reasons[change.reason.key] = change.reason
        counts = self.source(change.source)
        counts.changed[change.reason.key] += 1
        if counts.changed[change.reason.key] <= NUM_EXAMPLES:
            _keep_example(counts.changes, change.reason, show_difference(change))

    def total_dropped(self) -> Counter[str]:
        """Drops of all sources by reason, in the order in which they were met."""
        total: Counter[str] = Counter()
        for counts in self.sources.values():
            total += counts.dropped
        return total

    def total_changed(self) -> Counter[str]:
        """Changed records of all sources by reason, in the order in which they were met."""
        total: Counter[str] = Counter()
        for counts in self.sources.values():
            total += counts.changed
        return total

    def faults(self, label: str) -> Counter[str]:
        """The drops of a source that are faults of its data, by reason."""
        dropped = self.source(label).dropped
        return Counter({key: count for key, count in dropped.items() if self._is(key, "fault")})

    def fault_ratio(self, label: str) -> float:
        """The share of a source's records that were dropped as faulty.

        Repetitions, and rows that the recipe leaves out, count on neither side.
        """
        counts = self.source(label)
        surplus = sum(n for key, n in counts.dropped.items() if self._is(key, "surplus"))
        return self.faults(label).total() / max(1, counts.read - surplus)

    def check(self) -> None:
        """Assert that no record went missing."""
        for label, counts in self.sources.items():
            assert counts.read == counts.kept + counts.dropped.total(), (label, counts)

    def _is(self, key: str, counts_as: str) -> bool:
        return self.reasons[key].counts_as == counts_as


def _keep_example(examples: dict[str, list[Example]], reason: Reason, item: Example) -> None:
    known = examples.setdefault(reason.key, [])
    if len(known) < NUM_EXAMPLES:
        known.append(item)


def show_difference(change: Change) -> Change:
    """The change with both texts cut to where they begin to differ."""
    pairs = zip(change.before, change.after, strict=False)
    same = next((at for at, (left, right) in enumerate(pairs) if left != right), None)
    if same is None:
        same = min(len(change.before), len(change.after))
    start = max(0, same - CHARS_BEFORE)
    return Change(
        reason=change.reason,
        source=change.source,
        place=change.place,
        before=change.before[start : start + SHOWN_CHARS],
        after=change.after[start : start + SHOWN_CHARS],
    )
