"""Who gets in, before anything of a request is read: keys, counts, bytes.

Under overload most of a server's time would go into reading what it then refuses.
"""

import re
from collections.abc import Mapping
from typing import final

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from limbeck.serving.api.errors import ApiError
from limbeck.serving.api.request_note import PROBES, open_note
from limbeck.serving.config import LimitsConfig
from limbeck.serving.keys import KeyEntry, Keys
from limbeck.serving.keys import Scope as KeyScope
from limbeck.serving.metrics import Metrics
from limbeck.serving.place import is_loopback

SCOPES: dict[str, KeyScope] = {
    "/v1/chat/completions": "chat",
    "/v1/models": "chat",
    "/v1/feedback": "feedback",
    "/v1/review": "review",
    "/metrics": "metrics",
}
"""What a key must be good for; a path that is not here is open to everybody."""
METHODS: dict[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("POST",),
    "/v1/feedback": ("POST",),
    "/v1/review": ("GET", "POST"),
}
"""What these paths answer to, where it is not GET alone; any other method is not there (405)."""
COUNTED = "/v1/chat/completions"
"""The path whose requests occupy the house."""
WITH_BODIES = (COUNTED, "/v1/feedback", "/v1/review")
PLAIN = (b"", b"identity", b"chunked")
"""Codings of a body that is read as it is."""
JSON = re.compile(rb"application/(?:[\w.-]+\+)?json\s*(?:;|$)", re.IGNORECASE)
HeaderValues = Mapping[bytes, bytes]
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
)


@final
class Admission:
    """Pure ASGI: counts, authenticates and bounds each request, and names it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        completions: ASGIApp,
        keys: Keys,
        limits: LimitsConfig,
        metrics: Metrics,
    ) -> None:
        """`completions` answers the path whose requests are counted; `app` answers all others."""
        self._app = app
        self._completions = completions
        self._keys = keys
        self._limits = limits
        self._metrics = metrics
        self.num_inside = 0
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, headers = scope["path"], dict(scope["headers"])
        note = open_note(method=scope["method"], path=path, headers=headers)
        if scope["method"] == "HEAD":  # the server, which knows its own scope, sends no body
            scope = {**scope, "method": "GET"}
        status = 500

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                named = (b"x-request-id", note.request_id.encode())
                headers = [*message.get("headers", ()), named, *SECURITY_HEADERS]
                message = {**message, "headers": headers}
            await send(message)

        is_post = scope["method"] == "POST"
        counts = path == COUNTED and is_post
        scope.setdefault("state", {})["note"] = note
        try:
            entry = self._check(scope, path, headers)
            scope["state"]["key"] = entry
            note.key = entry.name if entry is not None else ""
            if is_post and path in WITH_BODIES:
                self._check_kind(scope, headers)
            if counts:
                self._enter(scope)
            try:
                app = self._completions if counts else self._app
                await app(scope, self._bound(receive, scope, headers), send_named)
            finally:
                if counts:
                    self._leave()
        except ApiError as error:
            note.error = note.error or error.name
            await error.response()(scope, receive, send_named)
        finally:
            known = path if path in SCOPES or path in PROBES else "other"
            self._metrics.count_request(known, str(status)).inc()
            note.write(status)

    def _check_kind(self, scope: Scope, headers: HeaderValues) -> None:
        """A page of another site can send JSON under any name but its own without being allowed."""
        if not JSON.match(headers.get(b"content-type", b"")):
            self._reject(scope, "kind")
            raise ApiError(
                415, "the body has to be JSON and to say so: send Content-Type: application/json"
            )
        for name in (b"content-encoding", b"transfer-encoding"):
            if (coding := headers.get(name, b"").lower()) not in PLAIN:
                self._reject(scope, "kind")
                found = f"{name.decode().title()}: {coding.decode('latin-1')}"
                raise ApiError(415, f"found {found}; bodies are not unpacked: send it as it is")

    def _check(self, scope: Scope, path: str, headers: HeaderValues) -> KeyEntry | None:
        wanted = SCOPES.get(path) or ("chat" if path.startswith("/v1/models/") else None)
        if wanted is None:
            return None
        if self._keys.is_open:
            if wanted == "review":
                self._check_host(scope)
            return None
        value = headers.get(b"authorization", b"").decode("latin-1")
        kind, _, key = value.partition(" ")
        entry = self._keys.find(key.strip()) if kind.lower() == "bearer" and key.strip() else None
        if entry is None:
            self._reject(scope, "key")
            raise ApiError(
                401, "no valid key: send Authorization: Bearer KEY", code="invalid_api_key"
            )
        exists = scope["method"] in METHODS.get(path, ("GET",))
        if exists and not entry.is_good_for(wanted):
            self._reject(scope, "scope")
            raise ApiError(403, f"the key {entry.name!r} is not good for {wanted}")
        if path == COUNTED and (seconds := self._keys.seconds_to_wait(entry)):
            self._reject(scope, "rate")
            raise ApiError(
                429,
                f"the key {entry.name!r} has used up its minute",
                code="rate_limit_exceeded",
                retry_after=seconds,
            )
        return entry

    def _check_host(self, scope: Scope) -> None:
        """A page of another site whose name leads to this machine may not read what was asked."""
        if not is_loopback(HTTPConnection(scope).url.hostname or ""):
            self._reject(scope, "host")
            raise ApiError(
                403,
                "without keys, reviews are open to this machine under its own name only; make a "
                "key: limbeck keys NAME --scope review",
            )

    def _enter(self, scope: Scope) -> None:
        if self.is_draining:
            self._reject(scope, "draining")
            raise ApiError(503, "the server is about to stop", retry_after=5)
        if self.num_inside >= self._limits.max_requests:
            self._reject(scope, "full")
            raise ApiError(503, f"{self.num_inside} requests are being answered", retry_after=1)
        self.num_inside += 1
        self._metrics.in_flight.set(self.num_inside)

    def _leave(self) -> None:
        self.num_inside -= 1
        self._metrics.in_flight.set(self.num_inside)

    def _reject(self, scope: Scope, why: str) -> None:
        scope["state"]["note"].error = why
        self._metrics.rejected.labels(why).inc()

    def _bound(self, receive: Receive, scope: Scope, headers: HeaderValues) -> Receive:
        """`receive`, which counts bytes as they come, whatever the header says of them."""
        most = self._limits.max_body_bytes
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > most:
            self._reject(scope, "bytes")
            raise ApiError(413, f"{int(declared):,} bytes; at most {most:,} are taken")
        num_bytes = 0

        async def receive_bounded() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > most:
                self._reject(scope, "bytes")
                # FastAPI would make any other error of reading a 400.
                raise HTTPException(413, f"more than {most:,} bytes; at most so many are taken")
            return message

        return receive_bounded
