"""What travels to the database: one event of the journal as a line of JSON.

Every text is made storable here, once: no NUL, no half characters, no number that is none. Left
out: taking names out of a text; whoever opens the journal passes that in.
"""

import json
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

from limbeck.contracts.exchange import Exchange, Feedback, write_row
from limbeck.contracts.json_data import Json, JsonObject

EntryKind = Literal["exchange", "feedback", "erasure"]
REDACTED = ("question", "answer", "history", "system", "corrected_answer", "comment")
"""Fields that people or models wrote freely."""
NUMBERS = {
    "num_prompt_tokens": int,
    "num_completion_tokens": int,
    "queue_seconds": float,
    "first_token_seconds": float,
    "total_seconds": float,
}
"""What a database gives back in the type of its column, whatever was written."""
NOT_REDACTED = "[withheld: redaction failed]"
MAX_COUNT = 2**63 - 1
SALT_BYTES = 16
CANONICAL = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One event: `content` holds what can be erased, and a salt that makes its hash say nothing."""

    id: str
    kind: EntryKind
    exchange_id: str
    time: str
    """In UTC, as ISO 8601 has it."""
    content: JsonObject


class DamagedLineError(ValueError):
    """A line of the spool that is no event."""


def make_entry(item: Exchange | Feedback, *, redact: Callable[[str], str]) -> JournalEntry:
    """The event that stores an exchange or a feedback; the only place where texts are redacted.

    Raises:
        Exception: whatever `redact` raises; `withhold` says what is stored then.
    """
    row = write_row(item)
    for name in REDACTED:
        if name in row:
            row[name] = _apply(redact, row[name])
    return _finish(item, row)


def withhold(item: Exchange | Feedback) -> JournalEntry:
    """The event without its texts, for one whose texts could not be redacted."""
    row = write_row(item)
    for name in REDACTED:
        if row.get(name):
            row[name] = [] if name == "history" else NOT_REDACTED
    return _finish(item, row)


def _apply(redact: Callable[[str], str], value: str | list[str]) -> str | list[str]:
    return [redact(text) for text in value] if isinstance(value, list) else redact(value)


def _finish(item: Exchange | Feedback, row: JsonObject) -> JournalEntry:
    content = {name: _make_storable(value) for name, value in row.items()}
    for name, number in NUMBERS.items():
        if name in content:
            content[name] = number(content[name] or 0)
    if content.get("confidence") is not None:
        content["confidence"] = float(content["confidence"])
    content["salt"] = secrets.token_hex(SALT_BYTES)
    is_exchange = isinstance(item, Exchange)
    return JournalEntry(
        id=content["id"],
        kind="exchange" if is_exchange else "feedback",
        exchange_id=content["id"] if is_exchange else content["exchange_id"],
        time=content["time"],
        content=content,
    )


def _make_storable(value: Json) -> Json:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_make_storable(item) for item in value]
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value + 0.0 if math.isfinite(value) else None  # a database keeps no negative zero
    if isinstance(value, int):
        return max(-MAX_COUNT, min(value, MAX_COUNT))
    return value


def canonical_json(value: Json) -> str:
    """The one text of some JSON data: what is hashed, and what a line holds."""
    return CANONICAL.encode(value)


def write_line(entry: JournalEntry) -> bytes:
    """The event as one line."""
    return (canonical_json({"kind": entry.kind, "content": entry.content}) + "\n").encode()


def read_line(line: bytes) -> JournalEntry:
    """The event of a line.

    Raises:
        DamagedLineError: it holds none.
    """
    try:
        value = json.loads(line)
        kind, content = value["kind"], value["content"]
        exchange_id = content["id" if kind == "exchange" else "exchange_id"]
        texts = (content["id"], exchange_id, content["time"], content["salt"])
        if kind not in ("exchange", "feedback") or not all(isinstance(t, str) for t in texts):
            raise DamagedLineError(f"kind {kind!r}, expected an exchange or a feedback")
        return JournalEntry(texts[0], cast(EntryKind, kind), exchange_id, texts[2], content)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedLineError(f"{type(error).__name__}: {error}") from None
