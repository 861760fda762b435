"""Writes events to the database, each once, and chains them.

Whoever appends holds the row `head`, so several processes may share one journal. Left out: what
happens when the database does not answer; `writer` decides.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import (
    CompileError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    StatementError,
)

from limbeck.contracts.json_data import JsonObject
from limbeck.serving.journal.chain import FIRST_HASH, Head, Link, make_link
from limbeck.serving.journal.database import make_file, open_database
from limbeck.serving.journal.entries import JournalEntry
from limbeck.serving.journal.schema import (
    CONTENTS,
    head,
    ledger,
    metadata,
    to_columns,
    to_microseconds,
)

NAME = "journal"


class JournalStore:
    """The tables of one journal, for writing."""

    def __init__(self, url: URL, *, timeout_seconds: float) -> None:
        self._url = url
        self._is_ready = False
        self._is_sqlite = url.get_backend_name() == "sqlite"
        self.engine = open_database(url, timeout_seconds=timeout_seconds, access="write")

    def append(self, entries: Sequence[JournalEntry]) -> int:
        """How many events were new; all are in the database then, chained in their order.

        Raises:
            sqlalchemy.exc.SQLAlchemyError, OSError: nothing of them was written.
        """
        self._make_tables()
        with self.engine.begin() as connection:
            return len(append_entries(connection, entries))

    def is_fault_of_row(self, error: Exception) -> bool:
        """Whether an error of `append` comes from what a row holds, and would always come again."""
        if isinstance(error, InterfaceError):
            return self._is_sqlite  # a value that cannot be bound; elsewhere, a lost connection
        if isinstance(error, DBAPIError):
            return isinstance(error, DataError | IntegrityError)
        return isinstance(
            error,
            StatementError | CompileError | ValueError | TypeError | KeyError | OverflowError,
        )

    def disconnect(self) -> None:
        """Close all connections; the next use opens new ones, and makes tables that are gone."""
        self._is_ready = False
        self.engine.dispose()

    def _make_tables(self) -> None:
        if self._is_ready:
            return
        make_file(self._url)
        with self.engine.begin() as connection:
            if not self._is_sqlite:  # two processes that make the tables at once disturb each other
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7215320)"))
            metadata.create_all(connection)
            insert = sqlite.insert if self._is_sqlite else postgresql.insert
            first = insert(head).values(name=NAME, seq=0, hash=FIRST_HASH)
            connection.execute(first.on_conflict_do_nothing())
        self._is_ready = True


def append_entries(connection: Connection, entries: Sequence[JournalEntry]) -> list[Link]:
    """The rows added to the chain: one for each event whose id it does not have yet."""
    last = lock_head(connection)
    known = _known_ids(connection, [entry.id for entry in entries])
    links: list[Link] = []
    contents: dict[str, list[JsonObject]] = {}
    for entry in entries:
        if entry.id in known:
            continue
        known.add(entry.id)
        link = make_link(
            last,
            entry_id=entry.id,
            kind=entry.kind,
            exchange_id=entry.exchange_id,
            time_us=to_microseconds(entry.time),
            content=entry.content,
        )
        links.append(link)
        contents.setdefault(entry.kind, []).append(to_columns(entry.content))
        last = Head(link.seq, link.hash)
    if links:
        connection.execute(sa.insert(ledger), [dict(vars(link)) for link in links])
        for kind, columns in contents.items():
            connection.execute(sa.insert(CONTENTS[kind]), columns)
        connection.execute(sa.update(head).values(seq=last.seq, hash=last.hash))
    return links


def lock_head(connection: Connection) -> Head:
    """The chain's last row; nobody else appends until the transaction ends."""
    row = connection.execute(sa.select(head.c.seq, head.c.hash).with_for_update()).one()
    return Head(row.seq, row.hash)


def _known_ids(connection: Connection, ids: list[str]) -> set[str]:
    # One statement for each power of two: a driver keeps those that it has prepared, and one for
    # each number of rows that ever comes would grow its memory for hours.
    padded = [*ids, *ids[-1:] * ((1 << (len(ids) - 1).bit_length()) - len(ids))]
    query = sa.select(ledger.c.id).where(ledger.c.id.in_(padded))
    return set(connection.execute(query).scalars())
