"""Checks a journal against its chain: every row that was changed, removed, added or moved.

A chain has no end of its own: whoever can write the database can cut off its last rows and mend the
head. Keep the head that `verify` prints elsewhere, and pass it the next time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.serving.journal.chain import FIRST_HASH, Head, Link, hash_content
from limbeck.serving.journal.retention import covers
from limbeck.serving.journal.schema import (
    CONTENTS,
    erasures,
    head,
    ledger,
    to_content,
    to_microseconds,
)

BATCH_ROWS = 500
LINK_FIELDS = tuple(Link.__dataclass_fields__)


@dataclass(frozen=True)
class ChainFault:
    """One row that is not as it was written."""

    seq: int
    id: str
    """'' where the row is gone."""
    message: str


@dataclass(frozen=True)
class AuditResult:
    """What a check found."""

    head: Head
    """As the rows give it; keep it elsewhere to notice later that the last rows were cut off."""
    num_rows: int
    num_erased: int
    faults: tuple[ChainFault, ...]
    """At most `max_faults`."""


def verify(engine: Engine, *, expected: Head | None = None, max_faults: int = 100) -> AuditResult:
    """Check every row; `expected` is a head that an earlier check printed.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be read.
    """
    with engine.connect() as connection:
        checker = _Checker(connection, expected)
        faults: list[ChainFault] = []
        for fault in checker.faults():
            faults.append(fault)
            if len(faults) >= max_faults:
                break
        return AuditResult(checker.last, checker.num_rows, checker.num_erased, tuple(faults))


class _Checker:
    """One walk over the ledger, in its order."""

    def __init__(self, connection: Connection, expected: Head | None) -> None:
        self._connection = connection
        self._expected = expected
        self.last = Head(0, FIRST_HASH)
        self.num_rows = self.num_erased = 0
        self._is_last_whole = True

    def faults(self) -> Iterator[ChainFault]:
        """Everything that is wrong, in the order of the rows, then of the whole."""
        while batch := self._read_batch():
            links = [Link(**{name: row[name] for name in LINK_FIELDS}) for row in batch]
            contents = self._read_contents(links)
            for link, row in zip(links, batch, strict=True):
                yield from self._check_link(link)
                yield from _check_content(link, contents.get(link.id), row["erased_by"])
                self.num_rows += 1
                self.num_erased += row["erased_by"] is not None
                self.last = Head(link.seq, link.hash)
                if self._expected and self._expected.seq == link.seq:
                    yield from self._compare_expected(link)
        yield from self._check_end()
        yield from self._check_erasures()
        yield from self._find_unchained()

    def _read_batch(self) -> list[JsonObject]:
        query = sa.select(ledger).where(ledger.c.seq > self.last.seq).order_by(ledger.c.seq)
        return [row._asdict() for row in self._connection.execute(query.limit(BATCH_ROWS))]

    def _check_link(self, link: Link) -> Iterator[ChainFault]:
        gap = link.seq - self.last.seq - 1
        if gap == 1:
            yield ChainFault(link.seq - 1, "", "the row was removed")
        elif gap > 1:
            message = f"rows {self.last.seq + 1} to {link.seq - 1} were removed"
            yield ChainFault(self.last.seq + 1, "", message)
        follows_whole_row, self._is_last_whole = self._is_last_whole and not gap, _fits(link)
        if not self._is_last_whole:
            yield ChainFault(
                link.seq, link.id, "the row was changed or moved: its hash does not fit"
            )
        elif follows_whole_row and link.previous_hash != self.last.hash:
            yield ChainFault(link.seq, link.id, "the row does not follow the one before it")

    def _read_contents(self, links: list[Link]) -> dict[str, JsonObject]:
        found: dict[str, JsonObject] = {}
        for kind, table in CONTENTS.items():
            ids = [link.id for link in links if link.kind == kind]
            if ids:
                rows = self._connection.execute(sa.select(table).where(table.c.id.in_(ids)))
                found |= {row.id: _read_content(row._asdict()) for row in rows}
        return found

    def _compare_expected(self, link: Link) -> Iterator[ChainFault]:
        if self._expected and link.hash != self._expected.hash:
            yield ChainFault(link.seq, link.id, "the chain is not the one whose head was kept")

    def _check_end(self) -> Iterator[ChainFault]:
        row = self._connection.execute(sa.select(head.c.seq, head.c.hash)).one()
        kept = max(Head(row.seq, row.hash), self._expected or self.last, key=lambda h: h.seq)
        if kept.seq > self.last.seq:
            message = f"rows {self.last.seq + 1} to {kept.seq} were removed from the end"
            yield ChainFault(self.last.seq + 1, "", message)
        elif (row.seq, row.hash) != (self.last.seq, self.last.hash):
            yield ChainFault(self.last.seq, "", "the head is not the last row: rows were added")

    def _check_erasures(self) -> Iterator[ChainFault]:
        done = self._connection.execute(
            sa.select(ledger.c.seq, erasures).join(erasures, erasures.c.id == ledger.c.id)
        ).all()
        for row in done:
            mine = ledger.c.erased_by == row.seq
            outside = mine & (~covers(row.exchange_id, row.before_us) | (ledger.c.seq > row.seq))
            query = sa.select(ledger.c.seq, ledger.c.id).where(outside)
            for other in self._connection.execute(query):
                message = f"the content was erased, and erasure {row.seq} does not cover it"
                yield ChainFault(other.seq, other.id, message)
            count = sa.select(sa.func.count()).select_from(ledger).where(mine)
            num_rows = self._connection.execute(count).scalar_one()
            if num_rows != row.num_rows:
                message = f"erased {row.num_rows} contents; {num_rows} rows say so"
                yield ChainFault(row.seq, row.id, message)
        known = [row.seq for row in done]
        query = sa.select(ledger.c.seq, ledger.c.id, ledger.c.erased_by).where(
            ledger.c.erased_by.is_not(None), ledger.c.erased_by.not_in(known)
        )
        for row in self._connection.execute(query):
            message = f"the content was erased, and there is no erasure {row.erased_by}"
            yield ChainFault(row.seq, row.id, message)

    def _find_unchained(self) -> Iterator[ChainFault]:
        for kind, table in CONTENTS.items():
            chained = sa.select(ledger.c.id).where(ledger.c.id == table.c.id)
            query = sa.select(table.c.id).where(~chained.where(ledger.c.kind == kind).exists())
            for entry_id in self._connection.execute(query).scalars():
                yield ChainFault(
                    0, entry_id, f"a row of {table.name} is not in the chain: it was added"
                )


def _fits(link: Link) -> bool:
    try:
        return link.compute_hash() == link.hash
    except (TypeError, ValueError):  # whoever changes a row of SQLite may put any type there
        return False


def _read_content(row: JsonMapping) -> JsonObject:
    try:
        return to_content(row)
    except (TypeError, ValueError, OverflowError):
        return {}


def _check_content(
    link: Link, content: JsonObject | None, erased_by: int | None
) -> Iterator[ChainFault]:
    if content is None:
        if erased_by is None:
            yield ChainFault(link.seq, link.id, "the content was removed")
    elif erased_by is not None:
        yield ChainFault(link.seq, link.id, "an erased content is back")
    elif not _holds(link, content):
        yield ChainFault(link.seq, link.id, "the content was changed")


def _holds(link: Link, content: JsonObject) -> bool:
    try:
        is_same = hash_content(content) == link.content_hash
        return is_same and to_microseconds(content["time"]) == link.time_us
    except (TypeError, ValueError):
        return False
