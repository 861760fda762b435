"""The connections to another server: a request goes out, and the events of its answer come in.

Left out: how many requests are open at once, and whether the server is there.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import final

import httpx2

from limbeck.contracts.errors import EngineDownError, SlowTierError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.openai_server import hide_key
from limbeck.serving.engine.chat_stream import AnswerReader, EventReader, describe_request
from limbeck.serving.engine.messages import Finished, Generate, Piece
from limbeck.serving.engine.remote_errors import error_of_status
from limbeck.serving.engine.remote_health import find_fault
from limbeck.serving.place import OpenAiHttp, is_loopback
from limbeck.serving.privacy import redact

IDLE_CONNECTION_SECONDS = 2.0
"""Servers close idle connections after 5 s or more; few requests are to meet one being closed."""
END_SECONDS = 0.2
"""For the end of a response whose answers have ended; otherwise its connection is closed."""
MAX_ERROR_BYTES = 2**16


@final
class RemoteClient:
    """Connections with the key of a server, which is taken out of whatever comes back."""

    def __init__(self, place: OpenAiHttp, *, model: str, key: str, num_connections: int) -> None:
        self._place = place
        self._model = model
        self._key = key
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(place.idle_seconds, connect=place.connect_seconds, pool=None),
            limits=httpx2.Limits(
                max_connections=num_connections + 1,  # one looks whether the server is there
                keepalive_expiry=IDLE_CONNECTION_SECONDS,
            ),
            follow_redirects=False,
            trust_env=not is_loopback(place.host),  # a proxy has no way to this machine
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def find_fault(self) -> str:
        """Why the model does not answer; '' where it is ready."""
        return self.clean(await find_fault(self._client, self._place, model=self._model))

    def describe(self, request: Generate) -> JsonObject:
        """What is sent of a request.

        Raises:
            RefusedError: it needs what the server does not read.
        """
        return describe_request(request, model=self._model, place=self._place)

    def clean(self, text: str) -> str:
        """A text of the server without the key, which it may echo."""
        return hide_key(text, key=self._key)

    async def stream(
        self, request: Generate, *, queue_seconds: float
    ) -> AsyncIterator[Piece | Finished]:
        """The events of the answers to a request.

        Raises:
            ServingError: they do not come; the message does not name the tier.
        """
        if self._place.redacts:
            request = await asyncio.to_thread(_redact, request)
        answers, first = AnswerReader(request), 0.0
        try:
            async with aclosing(await self._send(request)) as response:
                await _check_response(response)
                events, contents = EventReader(), response.aiter_bytes()
                async for content in contents:
                    for data in events.push(content):
                        for piece in answers.take(data):
                            first = first or time.monotonic()
                            yield piece
                    if answers.is_done:
                        await _end(contents)
                        break
        except httpx2.ConnectTimeout:
            raise EngineDownError("no connection in time") from None
        except httpx2.TimeoutException:
            text = f"nothing came for {self._place.idle_seconds:g} s"
            raise SlowTierError(text) from None
        except httpx2.ConnectError as error:
            raise EngineDownError(f"no connection: {error}") from None
        except httpx2.HTTPError as error:
            what = "the connection broke" if first else "the connection broke before an answer"
            raise EngineDownError(f"{what} ({type(error).__name__})") from None
        decode_seconds = time.monotonic() - first if first else 0.0
        for end in answers.finish(queue_seconds=queue_seconds, decode_seconds=decode_seconds):
            yield end

    async def _send(self, request: Generate) -> httpx2.Response:
        """A response whose body is still to be read.

        A server may close an idle connection just when a request is sent over it; that request is
        sent again, over another one.
        """
        headers = {"X-Request-Id": request.request_id, "traceparent": request.traceparent}
        while True:
            opened: list[str] = []

            async def trace(name: str, info: object, opened: list[str] = opened) -> None:
                if name == "connection.connect_tcp.started":
                    opened.append(name)

            sent = self._client.build_request(
                "POST",
                f"{self._place.url}/chat/completions",
                json=self.describe(request),
                headers={name: value for name, value in headers.items() if value},
                extensions={"trace": trace},
            )
            try:
                return await self._client.send(sent, stream=True)
            except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                if opened:
                    raise


async def _check_response(response: httpx2.Response) -> None:
    """Nothing, where a stream follows.

    Raises:
        ServingError: none does; what the status stands for.
    """
    status, kind = response.status_code, response.headers.get("content-type", "")
    if status == 200:
        if not kind.startswith("text/event-stream"):
            found = kind or "something without a type"
            raise EngineDownError(f"it answers {found}, expected an event stream")
        return
    body = b""
    async for content in response.aiter_bytes():
        body += content
        if len(body) > MAX_ERROR_BYTES:
            break
    retry_after = response.headers.get("retry-after", "")
    raise error_of_status(status, body=body[:MAX_ERROR_BYTES], retry_after=retry_after)


async def _end(contents: AsyncIterator[bytes]) -> None:
    """Reads the end of a response, so that its connection can be used again."""
    with suppress(TimeoutError, StopAsyncIteration):
        async with asyncio.timeout(END_SECONDS):
            await anext(contents)


def _redact(request: Generate) -> Generate:
    messages = tuple(replace(item, content=redact(item.content).text) for item in request.messages)
    return replace(request, messages=messages)
