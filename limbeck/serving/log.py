"""What a service logs: one event a line, for programs (JSON) or for people.

Whoever logs gives `extra=log_fields(event=..., ...)`. No line holds a question or an answer; of an
exception there are the type and the places, as its message may quote either. Left out: the fields
of a request (`api.request_note`).
"""

import json
import logging
import queue
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from types import TracebackType
from typing import Literal, TextIO, final, get_args

from typing_extensions import override

from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.json_data import Json

LogFormat = Literal["json", "text", "none"]
FIELDS = "fields"
MAX_WAITING_LINES = 10_000
"""More are left out: whoever reads the log too slowly must not stop the service."""
PLAIN = re.compile(r"[\w./:+-]+", re.ASCII)


def read_format(name: str) -> LogFormat:
    """The format of this name.

    Raises:
        UnknownNameError: there is none.
    """
    found: dict[str, LogFormat] = {item: item for item in get_args(LogFormat)}
    if name not in found:
        raise UnknownNameError(name, known=found, what="format of the log")
    return found[name]


def log_fields(**fields: Json) -> dict[str, dict[str, Json]]:
    """The argument `extra` of a call that logs."""
    return {FIELDS: fields}


def describe_record(record: logging.LogRecord) -> dict[str, Json]:
    """The fields of a line."""
    given: Mapping[str, Json] = record.__dict__.get(FIELDS, {})
    found: dict[str, Json] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "event": given.get("event", "log"),
    }
    if "event" not in given:
        found["logger"] = record.name
    if (message := record.getMessage()) != found["event"]:
        found["message"] = message
    found |= given
    if record.exc_info and record.exc_info[0] is not None:
        kind, _, trace = record.exc_info
        found["exception"] = kind.__name__
        found["places"] = places_of(trace)
    return found


def places_of(trace: TracebackType | None) -> list[str]:
    """Files and lines that an exception came through, the innermost last."""
    return [f"{item.filename}:{item.lineno}" for item in traceback.extract_tb(trace)]


@final
class JsonFormatter(logging.Formatter):
    """A line of JSON."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(describe_record(record), ensure_ascii=False, separators=(",", ":"))


@final
class TextFormatter(logging.Formatter):
    """A line for people: time, level, what happened, and the fields that say something."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        found = describe_record(record)
        head = [str(found.pop("time")), str(found.pop("level")).upper(), str(found.pop("event"))]
        found.pop("logger", None)
        message = str(found.pop("message", ""))
        shown = [f"{name}={_quote(value)}" for name, value in found.items() if value not in ("", 0)]
        return " ".join([*head, *([_one_line(message)] if message else []), *shown])


def _quote(value: Json) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text, ensure_ascii=False)


@final
class WaitlessHandler(QueueHandler):
    """Hands records to a thread that writes them; never waits."""

    def __init__(self, waiting: "queue.Queue[logging.LogRecord]") -> None:
        super().__init__(waiting)
        self._lines = waiting
        self.num_dropped = 0

    @override
    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # the thread is in this process: nothing has to be made text for it

    @override
    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(record)
        except queue.Full:
            self.num_dropped += 1


@contextmanager
def write_log(form: LogFormat, *, to: TextIO) -> Iterator[None]:
    """Writes what is logged meanwhile, in place of what was set up before.

    With `none`, warnings are still written, as before.
    """
    root, service = logging.getLogger(), logging.getLogger("limbeck.serving")
    before, level = list(root.handlers), service.level
    if form == "none":
        service.setLevel(logging.WARNING)
        try:
            yield
        finally:
            service.setLevel(level)
        return
    writer = logging.StreamHandler(to)
    writer.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(MAX_WAITING_LINES)
    handler = WaitlessHandler(waiting)
    listener = QueueListener(waiting, writer)
    root.handlers = [handler]
    service.setLevel(logging.INFO)
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        root.handlers = before
        service.setLevel(level)
        if handler.num_dropped:
            logging.getLogger(__name__).warning("%d lines were left out", handler.num_dropped)
