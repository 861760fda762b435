"""Connections to the database of a journal, with the settings that its guarantees rest on."""

from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from limbeck.contracts.errors import JournalError

DATABASES = ("sqlite", "postgresql")


def parse_url(text: str) -> URL:
    """The database that a text names; a path is a file of SQLite.

    Raises:
        JournalError: it is no database that a journal can lie in.
    """
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        url = make_url(text)
    except ArgumentError:
        raise JournalError("the journal's URL cannot be read; " + EXPECTED) from None
    backend = url.drivername.partition("+")[0]
    if backend not in (*DATABASES, "postgres") or (backend == "sqlite" and not url.database):
        raise JournalError(f"a journal cannot lie in {show_url(url)}; {EXPECTED}")
    return url if backend == "sqlite" else url.set(drivername="postgresql+psycopg")


EXPECTED = "expected sqlite:///FILE or postgresql://USER@HOST/NAME"


def show_url(url: URL) -> str:
    """The URL without its password."""
    return url.render_as_string(hide_password=True)


def open_database(
    url: URL, *, timeout_seconds: float, access: Literal["write", "read"] = "read"
) -> Engine:
    """An engine; connecting happens at first use.

    To write, SQLite takes its lock at once (`BEGIN IMMEDIATE`), so that two writers wait instead of
    failing half way. To read, PostgreSQL gives one snapshot for a whole check.
    """
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(
            url, hide_parameters=True, connect_args={"timeout": timeout_seconds}
        )
        event.listen(engine, "connect", _set_up_sqlite)
        begin = "BEGIN IMMEDIATE" if access == "write" else "BEGIN"
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine
    milliseconds = round(timeout_seconds * 1000)
    return sa.create_engine(
        url,
        hide_parameters=True,
        isolation_level="REPEATABLE READ" if access == "read" else "READ COMMITTED",
        connect_args={
            "connect_timeout": max(2, round(timeout_seconds)),
            "options": f"-c lock_timeout={milliseconds}"
            + (f" -c statement_timeout={milliseconds}" if access == "write" else ""),
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        },
    )


def make_file(url: URL) -> None:
    """Make SQLite's file and its folder, which nobody else may read.

    Raises:
        OSError: they cannot be made.
    """
    if url.get_backend_name() == "sqlite" and url.database:
        path = Path(url.database)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)


def describe_error(error: Exception) -> str:
    """The first line of what went wrong, without any text of a row."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # sqlite3 begins no transaction of its own accord
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # a commit outlives a loss of power
    cursor.execute("PRAGMA secure_delete = ON")  # what is erased is overwritten
    cursor.close()
