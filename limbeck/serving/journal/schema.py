"""The tables of a journal, and their rows as Python data and back.

`ledger` is the chain, one row an event, never changed but for `erased_by`. What an event says
stands in `exchanges`, `feedback` or `erasures`, from where it can be erased.
"""

import json
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.serving.journal.entries import canonical_json

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

metadata = sa.MetaData()

head = sa.Table(
    "head",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)
"""One row, `journal`: the chain's last seq and hash. Whoever appends holds its lock."""

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("exchange_id", sa.Text, nullable=False, index=True),
    sa.Column("time_us", sa.BigInteger, nullable=False, index=True),
    sa.Column("content_hash", sa.Text, nullable=False),
    sa.Column("previous_hash", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("erased_by", sa.BigInteger),
)

exchanges = sa.Table(
    "exchanges",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("time_us", sa.BigInteger, nullable=False, index=True),
    sa.Column("requested_model", sa.Text, nullable=False),
    sa.Column("tier", sa.Text, nullable=False),
    sa.Column("route_reason", sa.Text, nullable=False),
    sa.Column("model_key", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("history", sa.Text, nullable=False),
    sa.Column("system", sa.Text, nullable=False),
    sa.Column("num_prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("num_completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("confidence", sa.Double),
    sa.Column("queue_seconds", sa.Double, nullable=False),
    sa.Column("first_token_seconds", sa.Double, nullable=False),
    sa.Column("total_seconds", sa.Double, nullable=False),
    sa.Column("is_machine_made", sa.Boolean, nullable=False),
)

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("exchange_id", sa.Text, nullable=False, index=True),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("thumbs", sa.Text, nullable=False),
    sa.Column("corrected_answer", sa.Text, nullable=False),
    sa.Column("comment", sa.Text, nullable=False),
)

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("exchange_id", sa.Text, nullable=False),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("before_us", sa.BigInteger, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("num_rows", sa.BigInteger, nullable=False),
)
"""What was forgotten: all of one exchange, or, where that is '', all before a time."""

CONTENTS = {"exchange": exchanges, "feedback": feedback, "erasure": erasures}
"""Where the content of each kind of event stands."""


def to_microseconds(time: str) -> int:
    """Microseconds since 1970 of an ISO 8601 time with a time zone."""
    return (datetime.fromisoformat(time) - EPOCH) // MICROSECOND


def to_time(microseconds: int) -> str:
    """The time in UTC as `contracts.exchange` writes it."""
    return (EPOCH + timedelta(microseconds=microseconds)).isoformat()


def to_columns(content: JsonMapping) -> JsonObject:
    """The columns that hold a content."""
    columns = dict(content)
    columns["time_us"] = to_microseconds(columns.pop("time"))
    if "history" in columns:
        columns["history"] = canonical_json(columns["history"])
    return columns


def to_content(columns: JsonMapping) -> JsonObject:
    """The content that some columns hold."""
    content = dict(columns)
    content["time"] = to_time(content.pop("time_us"))
    if "history" in content:
        content["history"] = json.loads(content["history"])
    return content
