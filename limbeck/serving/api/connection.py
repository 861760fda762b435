"""One request as ASGI has it: its body, its answer, and whether the client is still there.

The framework does the same for any route; the one that answers questions does without, because
that would cost as much as all that the service itself does.
"""

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import TypeVar, final

import pydantic
from starlette.exceptions import HTTPException
from starlette.types import Receive, Send

from limbeck.serving.api.errors import ApiError, describe_faults, not_utf8

BOM = b"\xef\xbb\xbf"
"""What some editors and shells write before UTF-8 (RFC 8259, sec. 8.1)."""
POLL_SECONDS = 0.02
"""Most answers are there before anybody has looked whether the client still is."""
Headers = Sequence[tuple[bytes, bytes]]
_Body = TypeVar("_Body", bound=pydantic.BaseModel)


async def read_body(receive: Receive, kind: type[_Body], *, seconds: float) -> _Body:
    """The body of a request, which has to come within `seconds`.

    Raises:
        ApiError: it is late, too large, no JSON, or not of this kind.
    """
    try:
        async with asyncio.timeout(seconds):
            content = await _receive_all(receive)
    except TimeoutError:
        raise ApiError(408, f"the body has not ended within {seconds:g} s") from None
    except HTTPException as error:
        raise ApiError(error.status_code, str(error.detail)) from None
    try:
        return kind.model_validate_json(content.removeprefix(BOM))
    except pydantic.ValidationError as error:
        try:
            content.decode()
        except UnicodeDecodeError as fault:
            raise not_utf8(fault) from None
        raise describe_faults(error.errors(include_url=False)) from None


async def _receive_all(receive: Receive) -> bytes:
    content, is_more = b"", True
    while is_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "the request ended before its body did")
        content += message.get("body", b"")
        is_more = message.get("more_body", False)
    return content


async def send_head(send: Send, *, kind: bytes, headers: Headers, status: int = 200) -> None:
    """Begins an answer."""
    head = [(b"content-type", kind), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})


async def send_json(send: Send, content: bytes, *, headers: Headers) -> None:
    """A whole answer."""
    length = (b"content-length", str(len(content)).encode())
    await send_head(send, kind=b"application/json", headers=[length, *headers])
    await send({"type": "http.response.body", "body": content})


@final
class UntilGone:
    """Ends what stands in its block when the client hangs up; `is_gone` says so afterwards."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watch: asyncio.Task[None] | None = None
        self.is_gone = False

    async def __aenter__(self) -> "UntilGone":
        loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._timer = loop.call_later(POLL_SECONDS, self._begin)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if not self.is_gone:
            return False
        assert self._task is not None
        return not self._task.uncancel() and kind is asyncio.CancelledError

    def _begin(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        assert self._task is not None
        self._task.cancel()
