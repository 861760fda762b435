"""Forgetting: contents are erased, their hashes stay, and the erasure is an event of the chain.

A row of the ledger names nobody and says nothing, so the chain stays whole and can still be
checked; `audit` refuses a content that is gone without such an event.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from limbeck.serving.journal.database import open_database
from limbeck.serving.journal.entries import SALT_BYTES, JournalEntry
from limbeck.serving.journal.schema import exchanges, feedback, ledger, to_microseconds
from limbeck.serving.journal.store import append_entries, lock_head

WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class ErasureScope:
    """What to forget: one exchange with its feedback, or everything before a time."""

    exchange_id: str = ""
    before: datetime | None = None

    @property
    def before_us(self) -> int:
        """The time in microseconds since 1970; 0 where an exchange is named."""
        return to_microseconds(self.before.isoformat()) if self.before else 0


def covers(exchange_id: str, before_us: int) -> sa.ColumnElement[bool]:
    """Whether a row of the ledger is in the scope of an erasure.

    Feedback goes with its exchange, however young it is.
    """
    is_content = ledger.c.kind != "erasure"
    if exchange_id:
        return is_content & (ledger.c.exchange_id == exchange_id)
    other = ledger.alias()
    old = sa.select(other.c.exchange_id).where(
        other.c.kind == "exchange", other.c.time_us < before_us
    )
    return is_content & ((ledger.c.time_us < before_us) | ledger.c.exchange_id.in_(old))


def forget(url: URL, scope: ErasureScope, *, by: str, reason: str = "") -> int:
    """How many events lost their content; the chain gets one more event, unless none did.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: nothing was erased.
    """
    engine = open_database(url, timeout_seconds=WAIT_SECONDS, access="write")
    try:
        with engine.begin() as connection:
            num_rows = _erase(connection, scope, by=by, reason=reason)
        if num_rows:
            _overwrite_traces(engine)
    finally:
        engine.dispose()
    return num_rows


def _erase(connection: Connection, scope: ErasureScope, *, by: str, reason: str) -> int:
    assert bool(scope.exchange_id) != bool(scope.before)
    condition = covers(scope.exchange_id, scope.before_us) & ledger.c.erased_by.is_(None)
    # The lock of the chain comes first, so that nothing joins the scope after it was counted.
    lock_head(connection)
    num_rows = connection.execute(
        sa.select(sa.func.count()).select_from(ledger).where(condition)
    ).scalar_one()
    if not num_rows:
        return 0
    event_id = f"erasure-{secrets.token_hex(8)}"
    content = {
        "id": event_id,
        "salt": secrets.token_hex(SALT_BYTES),
        "exchange_id": scope.exchange_id,
        "time": datetime.now(UTC).isoformat(),
        "before_us": scope.before_us,
        "by": by,
        "reason": reason,
        "num_rows": num_rows,
    }
    entry = JournalEntry(event_id, "erasure", scope.exchange_id, content["time"], content)
    (link,) = append_entries(connection, [entry])
    connection.execute(sa.update(ledger).where(condition).values(erased_by=link.seq))
    ids = sa.select(ledger.c.id).where(ledger.c.erased_by == link.seq)
    for table in (exchanges, feedback):
        connection.execute(sa.delete(table).where(table.c.id.in_(ids)))
    return num_rows


def _overwrite_traces(engine: Engine) -> None:
    """Have the database let go of the bytes as well, where it keeps old versions of rows."""
    if engine.dialect.name == "sqlite":
        connection = engine.raw_connection()  # a checkpoint fails inside a transaction
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
    else:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM exchanges, feedback")
