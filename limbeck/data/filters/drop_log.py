"""What became of every record: read, kept, or dropped for a reason, source by source.

What was read equals what was kept and what was dropped, for every source.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.records import Drop, Reason, Record

SHOWN_CHARS = 80


@dataclass
class SourceCounts:
    """What became of the records of one source."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notes: JsonObject = field(default_factory=dict)


class DropLog:
    """Counts per source, and a file with a line for every drop."""

    def __init__(self, path: Path) -> None:
        self.sources: dict[str, SourceCounts] = {}
        self.reasons: dict[str, Reason] = {}
        """Every reason that was met, by its key."""
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace")

    def __enter__(self) -> "DropLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def source(self, label: str) -> SourceCounts:
        """The counts of a source, made on first use."""
        return self.sources.setdefault(label, SourceCounts())

    def drop(self, drop: Drop) -> None:
        """Count one drop and write it to the file."""
        self.reasons[drop.reason.key] = drop.reason
        self.source(drop.source).dropped[drop.reason.key] += 1
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

    def total_dropped(self) -> Counter[str]:
        """Drops of all sources by reason, in the order in which they were met."""
        total: Counter[str] = Counter()
        for counts in self.sources.values():
            total += counts.dropped
        return total

    def check(self) -> None:
        """Assert that no record went missing."""
        for label, counts in self.sources.items():
            assert counts.read == counts.kept + counts.dropped.total(), (label, counts)
