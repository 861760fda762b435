"""Reads the journal: pages, filters, counts, and what a person should look at.

Left out: writing (`writer`), and checking the chain (`audit`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from limbeck.contracts.exchange import (
    SHADOW,
    Exchange,
    Feedback,
    Status,
    read_exchange,
    read_feedback,
)
from limbeck.serving.journal.schema import exchanges, feedback, ledger, to_content, to_microseconds

FeedbackFilter = Literal["up", "down", "corrected", "commented", "reviewed", "none"]
FEEDBACK_FILTERS: tuple[FeedbackFilter, ...] = get_args(FeedbackFilter)
ReviewReason = Literal["thumbs_down", "corrected", "unknown", "withheld", "low_confidence", "audit"]
REASONS: tuple[ReviewReason, ...] = get_args(ReviewReason)
PAGE_ROWS = 500
HASH_DIGITS = 16
HIDDEN = ("seq", "salt")


@dataclass(frozen=True)
class ExchangeFilter:
    """Which exchanges; an empty field leaves all in."""

    since: datetime | None = None
    until: datetime | None = None
    """The first moment that is not in it."""
    tiers: tuple[str, ...] = ()
    model_keys: tuple[str, ...] = ()
    statuses: tuple[Status, ...] = ()
    feedback: tuple[FeedbackFilter, ...] = ()
    """Any of these; `none`: nobody said anything."""
    ids: tuple[str, ...] = ()
    """These, shadows or not."""
    shadows: Literal["none", "only"] = "none"
    """Copies that candidates answered, and that nobody read, are left out of all that counts."""


@dataclass(frozen=True)
class ExchangeRow:
    """An exchange, its place in the chain, and what was said of it, oldest first."""

    seq: int
    hash: str
    exchange: Exchange
    feedback: tuple[Feedback, ...]


@dataclass(frozen=True)
class Counts:
    """How many exchanges there are, and how many of each tier and status."""

    num_exchanges: int
    by_tier: Mapping[str, int]
    by_status: Mapping[str, int]


@dataclass(frozen=True)
class Review:
    """What a person should look at."""

    max_confidence: float = 0.5
    """Answers less sure than this."""
    audit_ratio: float = 0.01
    """Share of all exchanges that is drawn by chance, the same ones each time."""
    reasons: tuple[ReviewReason, ...] = ()
    """Only what has one of these; empty: any."""


def read_page(
    engine: Engine, choice: ExchangeFilter, *, limit: int = 50, before_seq: int = 0
) -> tuple[ExchangeRow, ...]:
    """The newest exchanges, newest first; for the next page pass the last one's `seq`."""
    with engine.connect() as connection:
        condition = _condition(choice)
        if before_seq:
            condition &= ledger.c.seq < before_seq
        query = _select(condition).order_by(ledger.c.seq.desc()).limit(limit)
        return _read_rows(connection, query)


def read_all(engine: Engine, choice: ExchangeFilter) -> Iterator[ExchangeRow]:
    """Every exchange, oldest first, with a page of them in memory."""
    last = 0
    while True:
        with engine.connect() as connection:
            query = _select(_condition(choice) & (ledger.c.seq > last))
            rows = _read_rows(connection, query.order_by(ledger.c.seq).limit(PAGE_ROWS))
        yield from rows
        if len(rows) < PAGE_ROWS:
            return
        last = rows[-1].seq


def count(engine: Engine, choice: ExchangeFilter) -> Counts:
    """The exchanges that a filter chooses, counted."""
    joined = exchanges.join(ledger, ledger.c.id == exchanges.c.id)
    with engine.connect() as connection:

        def by(column: sa.Column[str]) -> dict[str, int]:
            query = sa.select(column, sa.func.count()).select_from(joined)
            rows = connection.execute(query.where(_condition(choice)).group_by(column))
            return {row[0]: row[1] for row in rows}

        by_tier = by(exchanges.c.tier)
        return Counts(sum(by_tier.values()), by_tier, by(exchanges.c.status))


def read_review_queue(
    engine: Engine,
    review: Review,
    *,
    choice: ExchangeFilter = ExchangeFilter(),
    limit: int = 50,
    before_seq: int = 0,
) -> tuple[tuple[ExchangeRow, tuple[ReviewReason, ...]], ...]:
    """Exchanges that no reviewer has spoken of, newest first, with why each should be looked at."""
    drawn = f"{round(review.audit_ratio * 16**HASH_DIGITS):0{HASH_DIGITS}x}"
    holds: dict[ReviewReason, sa.ColumnElement[bool]] = {
        "thumbs_down": _has_feedback("down"),
        "corrected": _has_feedback("corrected"),
        # A rule that lets no model answer declines too; there is nothing to review in that.
        "unknown": (exchanges.c.status == "declined") & exchanges.c.is_machine_made,
        "withheld": exchanges.c.status == "withheld",
        "low_confidence": (exchanges.c.confidence < review.max_confidence)
        & (exchanges.c.status == "answered"),
        "audit": sa.true() if review.audit_ratio >= 1 else ledger.c.hash < drawn,
    }
    wanted = sa.or_(*(holds[reason] for reason in review.reasons or REASONS))
    condition = _condition(choice) & ~_has_feedback("reviewed") & wanted
    if before_seq:
        condition &= ledger.c.seq < before_seq
    with engine.connect() as connection:
        query = _select(condition).order_by(ledger.c.seq.desc()).limit(limit)
        rows = _read_rows(connection, query)
    return tuple((row, _reasons(row, review, drawn)) for row in rows)


def _reasons(row: ExchangeRow, review: Review, drawn: str) -> tuple[ReviewReason, ...]:
    found = row.exchange
    is_unsure = found.confidence is not None and found.confidence < review.max_confidence
    holds: dict[ReviewReason, bool] = {
        "thumbs_down": any(item.thumbs == "down" for item in row.feedback),
        "corrected": any(item.corrected_answer for item in row.feedback),
        "unknown": found.status == "declined" and found.is_machine_made,
        "withheld": found.status == "withheld",
        "low_confidence": is_unsure and found.status == "answered",
        "audit": review.audit_ratio >= 1 or row.hash < drawn,
    }
    return tuple(reason for reason in REASONS if holds[reason])


def _condition(choice: ExchangeFilter) -> sa.ColumnElement[bool]:
    condition: sa.ColumnElement[bool] = ledger.c.kind == "exchange"
    if choice.since:
        condition &= ledger.c.time_us >= to_microseconds(choice.since.isoformat())
    if choice.until:
        condition &= ledger.c.time_us < to_microseconds(choice.until.isoformat())
    chosen = (
        (exchanges.c.tier, choice.tiers),
        (exchanges.c.model_key, choice.model_keys),
        (exchanges.c.status, choice.statuses),
        (exchanges.c.id, choice.ids),
    )
    for column, values in chosen:
        if values:
            condition &= column.in_(values)
    if not choice.ids:
        is_shadow = exchanges.c.route_reason == SHADOW
        condition &= is_shadow if choice.shadows == "only" else ~is_shadow
    if choice.feedback:
        condition &= sa.or_(*map(_has_feedback, choice.feedback))
    return condition


def _has_feedback(what: FeedbackFilter) -> sa.ColumnElement[bool]:
    given = sa.select(feedback.c.id).where(feedback.c.exchange_id == exchanges.c.id)
    conditions = {
        "up": feedback.c.thumbs == "up",
        "down": feedback.c.thumbs == "down",
        "corrected": feedback.c.corrected_answer != "",
        "commented": feedback.c.comment != "",
        "reviewed": feedback.c.role == "reviewer",
    }
    return ~given.exists() if what == "none" else given.where(conditions[what]).exists()


def _select(condition: sa.ColumnElement[bool]) -> sa.Select[tuple[object, ...]]:
    joined = exchanges.join(ledger, ledger.c.id == exchanges.c.id)
    return sa.select(ledger.c.seq, ledger.c.hash, exchanges).select_from(joined).where(condition)


def _read_rows(
    connection: Connection, query: sa.Select[tuple[object, ...]]
) -> tuple[ExchangeRow, ...]:
    found = [row._asdict() for row in connection.execute(query)]
    ids = [row["id"] for row in found]
    by_exchange: dict[str, list[Feedback]] = {entry_id: [] for entry_id in ids}
    order = sa.select(ledger.c.seq, feedback).join(feedback, feedback.c.id == ledger.c.id)
    order = order.where(feedback.c.exchange_id.in_(ids)).order_by(ledger.c.seq)
    for line in connection.execute(order) if ids else ():
        content = {key: value for key, value in line._asdict().items() if key not in HIDDEN}
        item = read_feedback(to_content(content))
        by_exchange[item.exchange_id].append(item)
    rows = []
    for row in found:
        seq, digest = row.pop("seq"), row.pop("hash")
        row.pop("salt")
        exchange = read_exchange(to_content(row))
        rows.append(ExchangeRow(seq, digest, exchange, tuple(by_exchange[exchange.id])))
    return tuple(rows)
