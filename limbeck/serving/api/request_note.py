"""What the log says of one request: never what was asked or answered."""

import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from limbeck.contracts.exchange import Exchange
from limbeck.contracts.json_data import Json, JsonMapping
from limbeck.serving.log import log_fields

logger = logging.getLogger(__name__)

SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/=+-]{0,127}")
TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
"""The header `traceparent` (W3C Trace Context)."""
MAX_PATH = 128
PROBES = ("/healthz/live", "/healthz/ready", "/health")
"""Paths that are read every few seconds: what they say stands in the metrics. `/health` is what
clients of other OpenAI-compatible servers ask."""


@final
@dataclass
class RequestNote:
    """One request, as it becomes known."""

    method: str
    path: str
    unique: str
    """No other request of any server has it."""
    request_id: str
    """The client's own, if it sent a sane one."""
    trace_id: str = ""
    span_id: str = ""
    """Of the client's span."""
    traceparent: str = ""
    """The client's header, as it is passed on to another server."""
    key: str = ""
    """The name of the API key."""
    error: str = ""
    """The code of the error that was answered."""
    is_stream: bool = False
    exchange: Exchange | None = None
    role: str = ""
    failed_tiers: JsonMapping = field(default_factory=dict)
    """Those that were asked before the one that answered, and why they did not."""
    started: float = field(default_factory=time.perf_counter)

    def write(self, status: int) -> None:
        """Logs it, when it has been answered."""
        if not logger.isEnabledFor(logging.INFO):
            return
        if self.path in PROBES or (self.path == "/metrics" and status == 200):
            return
        fields: dict[str, Json] = {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path[:MAX_PATH],
            "status": status,
        }
        if self.trace_id:
            fields |= {"trace_id": self.trace_id, "span_id": self.span_id}
        if self.key:
            fields["key"] = self.key
        if self.error:
            fields["error"] = self.error
        if self.exchange is not None:
            fields |= _describe_exchange(self.exchange, role=self.role, is_stream=self.is_stream)
        if self.failed_tiers:
            fields["failed_tiers"] = dict(self.failed_tiers)
        seconds = time.perf_counter() - self.started
        fields["total_seconds"] = round(seconds, 6)
        logger.info("request", extra=log_fields(event="request", **fields))


def open_note(*, method: str, path: str, headers: Mapping[bytes, bytes]) -> RequestNote:
    """The note of a request that has just come in."""
    unique = secrets.token_hex(12)
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    note = RequestNote(method, path, unique, given if SANE_ID.fullmatch(given) else f"req-{unique}")
    trace = headers.get(b"traceparent")
    found = TRACE_PARENT.fullmatch(trace.decode("latin-1")) if trace else None
    if found and int(found[1], 16) and int(found[2], 16):
        note.trace_id, note.span_id = found[1], found[2]
        note.traceparent = f"00-{found[1]}-{found[2]}-{found[3]}"
    return note


def _describe_exchange(found: Exchange, *, role: str, is_stream: bool) -> dict[str, Json]:
    return {
        "id": found.id,
        "stream": is_stream,
        "requested_model": found.requested_model,
        "tier": found.tier,
        "role": role,
        "route_reason": found.route_reason,
        "model_key": found.model_key,
        "answer_status": found.status,
        "cancelled": found.status == "cancelled",
        "confidence": found.confidence,
        "input_tokens": found.num_prompt_tokens,
        "output_tokens": found.num_completion_tokens,
        "queue_seconds": round(found.queue_seconds, 6),
        "first_token_seconds": round(found.first_token_seconds, 6),
    }
