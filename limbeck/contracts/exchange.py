"""What a service keeps of one question and its answer, and what people say of it afterwards.

The journal stores these; the reader `journal` makes records of them. Left out: how either is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from limbeck.contracts.json_data import JsonMapping, JsonObject

Status = Literal["answered", "declined", "withheld", "failed", "cancelled"]
"""How an exchange ended: with an answer, with "I do not know", with an answer that a rule held
back, with an error, or with the asker gone."""
STATUSES: tuple[Status, ...] = get_args(Status)
CANARY = "canary"
"""Ends the reason of a route where the candidate answered in the champion's place."""
SHADOW = "shadow"
"""The reason of a route where the candidate answered a copy that nobody was shown."""
Thumbs = Literal["up", "down", "none"]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One question with its answer, without anything that names a person."""

    id: str
    time: datetime
    """When the question arrived; with a time zone."""
    requested_model: str
    """The model that was asked for, such as `auto`."""
    tier: str
    """Who answered."""
    route_reason: str
    model_key: str
    """Content hash of the model that answered, as the model registry has it."""
    question: str
    answer: str
    status: Status
    history: tuple[str, ...] = ()
    """Earlier turns of the conversation: user, assistant, user, assistant."""
    system: str = ""
    """The instructions that stood before the conversation."""
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    confidence: float | None = None
    """The calibrated confidence of the answer; None where its tier gives none."""
    queue_seconds: float = 0.0
    first_token_seconds: float = 0.0
    total_seconds: float = 0.0
    is_machine_made: bool = True
    """Whether a model wrote the answer, not a rule's text or a stored fact."""


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """What somebody says of one answer; several may speak, and nothing is overwritten."""

    id: str
    exchange_id: str
    time: datetime
    """With a time zone."""
    by: str
    role: Literal["user", "reviewer"] = "user"
    """Whether who speaks answers for what a model will learn from it."""
    thumbs: Thumbs = "none"
    corrected_answer: str = ""
    comment: str = ""


def last_thumbs(feedback: Sequence[Feedback]) -> Thumbs:
    """The thumbs that count of all that was said, oldest first: a reviewer's before a user's."""
    given = [item for item in feedback if item.thumbs != "none" or _dismisses(item)]
    given.sort(key=_is_reviewer)
    return given[-1].thumbs if given else "none"


def last_correction(feedback: Sequence[Feedback]) -> Feedback | None:
    """The corrected answer that counts; None where nobody gave one.

    Whoever answers for it, a reviewer, may also take a user's back: with thumbs up, or by saying
    neither what is right nor that the answer is.
    """
    given = [
        item
        for item in feedback
        if item.corrected_answer.strip() or _confirms(item) or _dismisses(item)
    ]
    given.sort(key=_is_reviewer)
    return given[-1] if given and given[-1].corrected_answer.strip() else None


def _is_reviewer(item: Feedback) -> bool:
    return item.role == "reviewer"


def _confirms(item: Feedback) -> bool:
    return _is_reviewer(item) and item.thumbs == "up"


def _dismisses(item: Feedback) -> bool:
    """Whether a reviewer has looked at it, and nothing is to be learnt from it."""
    return _is_reviewer(item) and item.thumbs == "none" and not item.corrected_answer.strip()


def write_row(item: Exchange | Feedback) -> JsonObject:
    """The item as JSON data, with its time in UTC."""
    row = dict(vars(item))
    row["time"] = item.time.astimezone(UTC).isoformat()
    if isinstance(item, Exchange):
        row["history"] = list(item.history)
    return row


def read_exchange(row: JsonMapping) -> Exchange:
    """The exchange that `write_row` wrote.

    Raises:
        TypeError, ValueError: a key is missing or unknown, or the time is none.
    """
    changes = {
        "time": datetime.fromisoformat(row["time"]),
        "history": tuple(row.get("history", ())),
    }
    return Exchange(**{**row, **changes})


def read_feedback(row: JsonMapping) -> Feedback:
    """The feedback that `write_row` wrote.

    Raises:
        TypeError, ValueError: a key is missing or unknown, or the time is none.
    """
    return Feedback(**{**row, "time": datetime.fromisoformat(row["time"])})
