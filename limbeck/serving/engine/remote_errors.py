"""What the statuses of another server stand for: pure functions."""

import json

from limbeck.contracts.errors import EngineDownError, QueueFullError, RefusedError, ServingError
from limbeck.contracts.json_data import Json

MAX_QUOTED_CHARS = 300
TOO_LONG = ("context_length_exceeded", "exceed_context_size_error")
"""Codes of OpenAI's and of llama.cpp's servers."""

DOWN = ("model_down", "model_slow")
"""Codes with which another Limbeck service refuses, though its queue has room."""


def error_of_status(status: int, *, body: bytes, retry_after: str) -> ServingError:
    """The error that a response without an answer stands for; it does not name the tier."""
    message, code = read_error(body)
    if status == 503 and code in DOWN:
        return EngineDownError(f"its model is down: {message}")
    if status in (429, 503):
        seconds = _read_wait(retry_after)
        text = f"its server is full ({status}: {message})"
        return QueueFullError(text, retry_seconds=seconds) if seconds else QueueFullError(text)
    if status in (400, 413, 422):
        is_too_long = status == 413 or code in TOO_LONG
        return RefusedError(f"its server refuses the request: {message}", is_too_long=is_too_long)
    if status in (401, 403):
        return EngineDownError(f"its server refuses the key ({status})")
    if 300 <= status < 400:
        return EngineDownError(f"its server redirects ({status}), which is not followed")
    return EngineDownError(f"its server answers with status {status}: {message}")


def read_error(body: bytes) -> tuple[str, str]:
    """The message and the code of an error's body, whoever wrote it."""
    text = body.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
        found = found.get("error", found)
        code = (found.get("code"), found.get("type")) if isinstance(found, dict) else ()
        return message_of(found), next((item for item in code if isinstance(item, str)), "")
    except (ValueError, AttributeError, RecursionError):
        return text[:MAX_QUOTED_CHARS] or "nothing more", ""


def message_of(found: Json) -> str:
    """The message of an error that is an object, or a text."""
    text = found.get("message") or found.get("detail") if isinstance(found, dict) else found
    return str(text or found)[:MAX_QUOTED_CHARS]


def _read_wait(text: str) -> float:
    """Seconds of a Retry-After header; 0 where it holds none, or a date."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if 0 < seconds < float("inf") else 0.0
