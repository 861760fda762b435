"""uvicorn's protocol with four changes: the head of an answer and its first bytes are one write, a
request that offers another protocol keeps its body, heads are bounded, and so is the time that a
client reads nothing.

uvicorn writes the head by itself. That is a call of the system more, and it wakes the client for
something that it cannot use yet: together as much as reading the request. It drops the body of a
request with `Upgrade: h2c`, which Java's HTTP client sends unless it is told not to. And it keeps
however many headers come, before anybody is asked for a key, and waits for ever for a client that
has stopped to read.
"""

import asyncio
from typing import Any, Protocol, final, runtime_checkable

import httptools
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from limbeck.serving.api.errors import ApiError

HEAD = b"HTTP/1.1 "
OFFERS = frozenset({b"upgrade", b"http2-settings"})
"""Headers of a request that offers another protocol, which `Connection` names as well."""
MAX_HEAD_BYTES = 64 * 2**10
"""Of what is no body: the head of a request, and what may follow a body that comes in chunks."""
STALLED_SECONDS = 60.0
"""That a client may read nothing of what is written to it, as nginx has it (`send_timeout`)."""
NO_REQUEST = (
    "this is no request in HTTP/1.1, which is all that is spoken here; TLS and HTTP/2 are a proxy's"
)


@runtime_checkable
class _Transport(Protocol):
    """What is used of asyncio's transports; uvloop's do not descend from them."""

    def write(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def is_closing(self) -> bool: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...


@final
class OneWrite(HttpToolsProtocol):
    """uvicorn's protocol over a transport that holds heads back."""

    _offers_upgrade = False
    """Whether the head that was read offers a protocol that is not spoken here."""
    _num_head_bytes = 0
    """Read since the latest end of a head, or part of a body."""
    _stalled: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: _Transport) -> None:
        super().connection_made(HeldHeads(transport, loop=self.loop))

    @override
    def on_headers_complete(self) -> None:
        self._num_head_bytes = 0
        offers = any(name == b"upgrade" for name, _ in self.headers)
        self._offers_upgrade = (
            offers and self.parser.should_upgrade() and not self._should_upgrade()
        )
        if not self._offers_upgrade:
            super().on_headers_complete()

    @override
    def on_body(self, body: bytes) -> None:
        self._num_head_bytes = 0
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._num_head_bytes = 0
        if not self._offers_upgrade:
            super().on_message_complete()

    @override
    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._num_head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as pause:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self._offers_upgrade:
                self._read_without_offer(data[pause.args[0] :])
        except httptools.HttpParserError:
            self._refuse(ApiError(400, NO_REQUEST))
        if self._num_head_bytes > MAX_HEAD_BYTES:
            self._refuse(ApiError(431, f"headers of more than {MAX_HEAD_BYTES:,} bytes"))

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    @override
    def resume_writing(self) -> None:
        self._end_stall()
        super().resume_writing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._end_stall()
        super().connection_lost(exc)

    def _end_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _refuse(self, error: ApiError) -> None:
        """Answers what no application can be given, and ends the connection."""
        if self.transport.is_closing():
            return
        response = error.response()
        headers = [*self.server_state.default_headers, *response.raw_headers]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        head = [STATUS_LINE[error.status], *lines, b"connection: close\r\n\r\n"]
        self.transport.write(b"".join([*head, bytes(response.body)]))
        self.transport.close()

    def _read_without_offer(self, rest: bytes) -> None:
        """Read the request once more, as if no other protocol were offered (RFC 9110, sec. 7.8).

        The parser takes what follows an offer for the other protocol's.
        """
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        for name, value in self.headers:
            if name == b"connection":
                named = value.split(b",")
                value = b",".join(item for item in named if item.strip().lower() not in OFFERS)
            if name not in OFFERS:
                lines.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))


@final
class HeldHeads(asyncio.Transport):
    """A transport that keeps a head until more comes, or the event loop's turn is over."""

    def __init__(self, inner: _Transport, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._head = b""
        self._turn_end: asyncio.Handle | None = None

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._head:
            data = self._take_head() + data
        elif data[: len(HEAD)] == HEAD:
            self._head = bytes(data)
            self._turn_end = self._loop.call_soon(self._write_head)
            return
        self._inner.write(data)

    @override
    def close(self) -> None:
        self._write_head()
        self._inner.close()

    @override
    def abort(self) -> None:
        self._take_head()
        self._inner.abort()

    @override
    def is_closing(self) -> bool:
        return self._inner.is_closing()

    @override
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)

    @override
    def pause_reading(self) -> None:
        self._inner.pause_reading()

    @override
    def resume_reading(self) -> None:
        self._inner.resume_reading()

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._write_head()
        self._inner.set_protocol(protocol)

    def _write_head(self) -> None:
        if head := self._take_head():
            self._inner.write(head)

    def _take_head(self) -> bytes:
        if self._turn_end is not None:
            self._turn_end.cancel()
            self._turn_end = None
        head, self._head = self._head, b""
        return head
