"""What the commands on a journal read and print."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import typer
from rich.table import Table
from rich.text import Text
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import SQLAlchemyError

from limbeck.cli.console import open_screen, print_json
from limbeck.cli.store_tables import user
from limbeck.contracts.errors import JournalError, UnknownNameError
from limbeck.contracts.exchange import STATUSES, last_correction, last_thumbs
from limbeck.contracts.serialization import to_json
from limbeck.serving.journal.audit import verify
from limbeck.serving.journal.chain import Head
from limbeck.serving.journal.database import describe_error, open_database, parse_url, show_url
from limbeck.serving.journal.export import ExportShape, export, to_corpus
from limbeck.serving.journal.queries import (
    FEEDBACK_FILTERS,
    ExchangeFilter,
    Review,
    count,
    read_all,
    read_page,
    read_review_queue,
)
from limbeck.serving.journal.retention import ErasureScope, forget

TIMEOUT_SECONDS = 30.0
SHOWN_CHARS = 60
COLUMNS = 160
Name = TypeVar("Name", bound=str)


@contextmanager
def open_journal(text: str) -> Iterator[Engine]:
    """The database of a journal, to read.

    Raises:
        JournalError: it is not there, cannot be read, or is no journal.
    """
    url = find_journal(text)
    engine = open_database(url, timeout_seconds=TIMEOUT_SECONDS)
    try:
        yield engine
    except SQLAlchemyError as error:
        message = f"{show_url(url)}: cannot be read as a journal ({describe_error(error)})"
        raise JournalError(message) from None
    finally:
        engine.dispose()


def find_journal(text: str) -> URL:
    """The database that an option names.

    Raises:
        JournalError: there is no such file.
    """
    url = parse_url(text)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise JournalError(f"{url.database}: no such file; name the journal with --journal")
    return url


def choose(
    since: datetime | None,
    until: datetime | None,
    *,
    tiers: Sequence[str],
    statuses: Sequence[str],
    feedback: Sequence[str],
    exchange: str,
) -> ExchangeFilter:
    """What the options choose; times are this machine's.

    Raises:
        UnknownNameError: there is no such status or feedback.
    """
    return ExchangeFilter(
        since=since.astimezone() if since else None,
        until=until.astimezone() if until else None,
        tiers=tuple(tiers),
        statuses=tuple(_pick(name, STATUSES, what="status") for name in statuses),
        feedback=tuple(_pick(name, FEEDBACK_FILTERS, what="feedback") for name in feedback),
        ids=(exchange,) if exchange else (),
    )


def print_rows(
    engine: Engine, choice: ExchangeFilter, *, limit: int, only_review: bool, as_json: bool
) -> None:
    """The newest exchanges; for people, below what all of them count up to."""
    if only_review:
        found = read_review_queue(engine, Review(), choice=choice, limit=limit)
    else:
        found = [(row, ()) for row in read_page(engine, choice, limit=limit)]
    if as_json:
        print_json([to_corpus(row) | {"reasons": list(reasons)} for row, reasons in found])
        return
    total = count(engine, choice)
    typer.echo(f"{total.num_exchanges} exchanges; {_list(total.by_tier)}; {_list(total.by_status)}")
    names = ["time", "id", "tier", "status", "confidence", "question", "answer", "feedback"]
    table = Table(*names, box=None, header_style="bold")
    for row, reasons in found:
        item = row.exchange
        opinions = [last_thumbs(row.feedback).replace("none", "")]
        opinions += ["corrected"] if last_correction(row.feedback) else []
        confidence = "" if item.confidence is None else f"{item.confidence:.2f}"
        moment = item.time.astimezone().isoformat(" ", "seconds")[:19]
        texts = (_shorten(item.question), _shorten(item.answer))
        cells = (moment, item.id, item.tier, item.status, confidence, *texts)
        table.add_row(*map(Text, cells), ", ".join(filter(None, [*opinions, *reasons])))
    open_screen(COLUMNS).print(table)


def print_verdict(engine: Engine, *, expect: str, as_json: bool) -> bool:
    """Check the chain; whether every row is as it was written.

    Raises:
        JournalError: what is expected is no head.
    """
    found = verify(engine, expected=_read_head(expect) if expect else None)
    if as_json:
        print_json(to_json(found))
    else:
        for fault in found.faults:
            name = f" ({fault.id})" if fault.id else ""
            typer.echo(f"row {fault.seq or '?'}{name}: {fault.message}")
        verdict = f"{len(found.faults)} faults" if found.faults else "whole"
        typer.echo(f"{found.num_rows} rows, {found.num_erased} of them erased: {verdict}")
        typer.echo(f"head {found.head}")
    return not found.faults


def write_export(engine: Engine, choice: ExchangeFilter, path: Path, *, shape: ExportShape) -> None:
    """Write the file, and say how much it holds.

    Raises:
        JournalError: it cannot be written.
    """
    try:
        num_rows = export(read_all(engine, choice), path, shape=shape)
    except OSError as error:
        raise JournalError(f"{path}: cannot be written ({error.strerror})") from None
    typer.echo(f"{path}: {num_rows} exchanges")


def forget_rows(text: str, *, older_than_days: float, exchange: str, by: str, reason: str) -> int:
    """How many rows lost their content.

    Raises:
        JournalError: nothing or too much is named, or the journal cannot be written.
    """
    if bool(older_than_days) == bool(exchange):
        raise JournalError("name what to forget: either --older-than-days or --id")
    before = datetime.now(UTC) - timedelta(days=older_than_days) if older_than_days else None
    url = find_journal(text)
    try:
        return forget(url, ErasureScope(exchange, before), by=by or user(), reason=reason)
    except SQLAlchemyError as error:
        raise JournalError(f"{show_url(url)}: nothing erased ({describe_error(error)})") from None


def _pick(name: str, known: tuple[Name, ...], *, what: str) -> Name:
    for item in known:
        if item == name:
            return item
    raise UnknownNameError(name, known=known, what=what)


def _read_head(text: str) -> Head:
    seq, _, digest = text.partition(":")
    if not seq.isdecimal() or not digest:
        raise JournalError(f"--expect {text!r}: expected SEQ:HASH, as `journal verify` prints it")
    return Head(int(seq), digest)


def _list(counts: object) -> str:
    assert isinstance(counts, dict)
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "none"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARS else line[: SHOWN_CHARS - 3] + "..."
