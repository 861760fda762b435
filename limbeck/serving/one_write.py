"""The head of an answer and its first bytes in one write.

uvicorn writes the head by itself. That is a call of the system more, and it wakes the client for
something that it cannot use yet: together as much as reading the request.
"""

import asyncio
from typing import Any, Protocol, final, runtime_checkable

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD = b"HTTP/1.1 "


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

    @override
    def connection_made(self, transport: _Transport) -> None:
        super().connection_made(HeldHeads(transport, loop=self.loop))


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
