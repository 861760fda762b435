"""The account of every record: read, kept, or dropped for a reason, source by source.

What was read equals what was kept and what was dropped, for every source; `check` says so. Left
out: showing it (`card.py`).
"""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.contracts.records import Drop, Record

SHOWN_CHARS = 80


@dataclass
class Account:
    """What became of the records of one source."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notes: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """Counts per source, and a file with a line for every drop."""

    def __init__(self, path: Path) -> None:
        self.accounts: dict[str, Account] = {}
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace")

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def account(self, source: str) -> Account:
        """The account of a source, opened on first use."""
        return self.accounts.setdefault(source, Account())

    def drop(self, drop: Drop) -> None:
        """Count one drop and write it down."""
        self.account(drop.source).dropped[drop.reason] += 1
        self._file.write(
            json.dumps(dataclasses.asdict(drop), ensure_ascii=False, sort_keys=True) + "\n"
        )

    def drop_record(self, record: Record, *, reason: str, detail: str = "") -> None:
        """Count one record as dropped and write down where it stood."""
        shown = detail or (record.question or record.answer)[:SHOWN_CHARS]
        self.drop(Drop(reason=reason, source=record.source, place=record.place, detail=shown))

    def totals(self) -> Account:
        """The accounts of all sources added up."""
        total = Account()
        for account in self.accounts.values():
            total.read += account.read
            total.kept += account.kept
            total.dropped += account.dropped
        return total

    def check(self) -> None:
        """Assert that no record went missing."""
        for source, account in self.accounts.items():
            assert account.read == account.kept + account.dropped.total(), (source, account)
