"""A model behind another OpenAI-compatible server, as one of the service's engines.

Requests beyond the tier's rows wait here. The server is asked for its list of models again and
again: while that fails, requests are refused at once instead of waiting for a connection. Left out:
what requests and events look like (`chat_stream`).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import final

import httpx2
from typing_extensions import override

from limbeck.contracts.errors import (
    EngineDownError,
    QueueFullError,
    RefusedError,
    ServingError,
    SlowTierError,
)
from limbeck.contracts.json_data import JsonObject
from limbeck.serving.config import TierConfig
from limbeck.serving.engine.base import Engine, Generation
from limbeck.serving.engine.chat_stream import AnswerReader, EventReader, describe_request
from limbeck.serving.engine.messages import Finished, Generate, Piece
from limbeck.serving.engine.queue_bound import QueueBound
from limbeck.serving.engine.remote_errors import error_of_status
from limbeck.serving.engine.remote_health import find_fault
from limbeck.serving.log import log_fields
from limbeck.serving.place import OpenAiHttp, is_loopback
from limbeck.serving.privacy import redact

logger = logging.getLogger(__name__)

PROBE_SECONDS = 10.0
"""Between two looks at a server that is there."""
RETRY_SECONDS = 0.5
"""Between the first two looks at one that is not; doubled for each further one."""
MAX_RETRY_SECONDS = 10.0
MAX_CLOSED_SECONDS = 60.0
"""A server that is full may keep requests away for so long."""
IDLE_CONNECTION_SECONDS = 2.0
"""Servers close idle connections after 5 s or more; a request must not meet one being closed."""
END_SECONDS = 0.2
"""For the end of a response whose answers have ended; otherwise its connection is closed."""
MAX_ERROR_BYTES = 2**16
SECRET_CHARS = 8
_End = Piece | Finished | ServingError | None
"""None: nothing follows."""


@final
class RemoteGeneration(Generation):
    """The answers to one request, as they come over the network."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[_End] = asyncio.Queue()
        self.work: asyncio.Task[None] | None = None

    def put(self, event: _End) -> None:
        """Takes what the engine has received."""
        self._events.put_nowait(event)

    @override
    async def __aiter__(self) -> AsyncIterator[Piece | Finished]:
        while (event := await self._events.get()) is not None:
            if isinstance(event, ServingError):
                raise event
            yield event

    @override
    def cancel(self) -> None:
        if self.work is not None:
            self.work.cancel()  # which closes the connection, so that the server stops as well


@final
class RemoteEngine(Engine):
    """Sends requests to another server, and looks whether it is there."""

    def __init__(self, config: TierConfig, place: OpenAiHttp, *, key: str) -> None:
        self.name = config.name
        self._model = config.model
        self._place = place
        self._key = key
        self._num_slots = config.max_rows
        self._bound = QueueBound(
            num_slots=config.max_rows,
            max_waiting=config.max_waiting,
            max_wait_seconds=config.max_wait_seconds,
        )
        self._free = asyncio.Semaphore(config.max_rows)
        self._open: set[asyncio.Task[None]] = set()
        self._num_waiting = 0
        self._client: httpx2.AsyncClient | None = None
        self._watching: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        self._closed_until = 0.0
        self.num_answered = 0

    @property
    @override
    def num_waiting(self) -> int:
        return self._num_waiting

    @property
    @override
    def num_running(self) -> int:
        return len(self._open) - self._num_waiting

    @override
    def start(self) -> None:
        place = self._place
        is_here = is_loopback(place.host)
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(place.idle_seconds, connect=place.connect_seconds, pool=None),
            limits=httpx2.Limits(
                max_connections=self._num_slots + 1,  # one looks whether the server is there
                keepalive_expiry=IDLE_CONNECTION_SECONDS,
            ),
            follow_redirects=False,
            trust_env=not is_here,  # a proxy has no way to this machine
        )
        if not is_here:
            logger.warning(
                "%s: conversations are sent to %s, %s",
                self.name,
                place.host,
                "redacted" if place.redacts else "as they are",
                extra=log_fields(event="sends out", tier=self.name, redacted=place.redacts),
            )
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    @override
    async def stop(self) -> None:
        self.state = "stopped"
        tasks = [*self._open, *([self._watching] if self._watching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    @override
    def submit(self, request: Generate) -> Generation:
        if self.state in ("restarting", "stopped"):
            raise EngineDownError(self.broken_because or f"{self.name} is stopped")
        if (left := self._closed_until - time.monotonic()) > 0:
            raise QueueFullError(f"{self.name}: its server is full", retry_seconds=left)
        if self._bound.is_reached(self._num_waiting) and self._free.locked():
            raise QueueFullError(f"{self._num_waiting} requests wait for {self.name} already")
        describe_request(request, model=self._model, place=self._place)  # refused here, if at all
        generation = RemoteGeneration()
        work = asyncio.get_running_loop().create_task(self._answer(request, generation))
        generation.work = work
        self._open.add(work)
        work.add_done_callback(self._open.discard)
        return generation

    async def _answer(self, request: Generate, generation: RemoteGeneration) -> None:
        submitted, is_waiting = time.monotonic(), True
        self._num_waiting += 1
        try:
            async with self._free:
                self._num_waiting -= 1
                is_waiting = False
                waited = time.monotonic() - submitted
                async for event in self._stream(request, queue_seconds=waited):
                    generation.put(event)
            self._bound.note_end(time.monotonic(), others_wait=self._num_waiting > 0)
            self.num_answered += 1
            generation.put(None)
        except QueueFullError as error:
            text = self._clean(f"{self.name}: {error}")
            generation.put(QueueFullError(text, retry_seconds=error.retry_seconds))
        except RefusedError as error:
            text = self._clean(f"{self.name}: {error}")
            generation.put(RefusedError(text, is_too_long=error.is_too_long))
        except EngineDownError as error:
            generation.put(type(error)(self._clean(f"{self.name}: {error}")))
        except asyncio.CancelledError:
            generation.put(EngineDownError(f"{self.name} is stopped"))
            raise
        except Exception as error:  # nobody may wait for an answer that will not come
            logger.exception("%s: a request failed", self.name)
            generation.put(EngineDownError(f"{self.name}: {type(error).__name__}"))
        finally:
            self._num_waiting -= is_waiting

    async def _stream(
        self, request: Generate, *, queue_seconds: float
    ) -> AsyncIterator[Piece | Finished]:
        assert self._client is not None
        if self._place.redacts:
            request = await asyncio.to_thread(_redact, request)
        body = describe_request(request, model=self._model, place=self._place)
        headers = {"X-Request-Id": request.request_id, "traceparent": request.traceparent}
        headers = {name: value for name, value in headers.items() if value}
        begun = first = 0.0
        try:
            async with aclosing(await self._send(body, headers)) as response:
                await self._check_response(response)
                events, answers = EventReader(), AnswerReader(request)
                contents = response.aiter_bytes()
                async for content in contents:
                    begun = begun or time.monotonic()
                    for data in events.push(content):
                        for piece in answers.take(data):
                            first = first or time.monotonic()
                            yield piece
                    if answers.is_done:
                        await _end(contents)
                        break
        except httpx2.TimeoutException as error:
            self._look.set()
            if isinstance(error, httpx2.ConnectTimeout):
                self._note_fault("no connection in time")
                raise EngineDownError("no connection in time") from None
            seconds = self._place.idle_seconds
            raise SlowTierError(f"nothing came for {seconds:g} s") from None
        except httpx2.HTTPError as error:
            self._look.set()
            if isinstance(error, httpx2.ConnectError):
                self._note_fault(f"no connection: {error}")
                raise EngineDownError(f"no connection: {error}") from None
            what = "the connection broke" if begun else "the connection broke before an answer"
            raise EngineDownError(f"{what} ({type(error).__name__})") from None
        decode_seconds = time.monotonic() - first if first else 0.0
        for end in answers.finish(queue_seconds=queue_seconds, decode_seconds=decode_seconds):
            yield end

    async def _send(self, body: JsonObject, headers: dict[str, str]) -> httpx2.Response:
        """A response whose body is still to be read.

        A server may close an idle connection just when a request is sent over it; that request is
        sent again, over another one.
        """
        assert self._client is not None
        while True:
            opened: list[str] = []

            async def trace(name: str, info: object, opened: list[str] = opened) -> None:
                if name == "connection.connect_tcp.started":
                    opened.append(name)

            request = self._client.build_request(
                "POST",
                f"{self._place.url}/chat/completions",
                json=body,
                headers=headers,
                extensions={"trace": trace},
            )
            try:
                return await self._client.send(request, stream=True)
            except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                if opened:
                    raise

    async def _check_response(self, response: httpx2.Response) -> None:
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
        body = await _read_some(response)
        error = error_of_status(
            status, body=body, retry_after=response.headers.get("retry-after", "")
        )
        if isinstance(error, QueueFullError) and "retry-after" in response.headers:
            seconds = min(error.retry_seconds, MAX_CLOSED_SECONDS)
            self._closed_until = time.monotonic() + seconds
        elif isinstance(error, EngineDownError):
            self._look.set()
        raise error

    async def _watch(self) -> None:
        """Looks at the server for ever, sooner where it is down or was found to be."""
        assert self._client is not None
        seconds = RETRY_SECONDS
        while True:
            self._look.clear()
            fault = await find_fault(self._client, self._place, model=self._model)
            if fault:
                self._note_fault(fault)
            elif self.state != "ready":
                level = logging.INFO if self.state == "starting" else logging.WARNING
                self.state, self.broken_because = "ready", ""
                logger.log(
                    level,
                    "%s: its server is there",
                    self.name,
                    extra=log_fields(event="tier up", tier=self.name),
                )
            seconds = min(2 * seconds, MAX_RETRY_SECONDS) if fault else RETRY_SECONDS
            await asyncio.sleep(RETRY_SECONDS)  # however many requests fail
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds if fault else PROBE_SECONDS):
                    await self._look.wait()

    def _note_fault(self, fault: str) -> None:
        reason = self._clean(f"{self.name}: {fault}")
        if self.state in ("ready", "starting"):
            is_lost = self.state == "ready"
            self.num_restarts += is_lost
            logger.warning(
                "%s: its server is %s (%s); it is asked again and again",
                self.name,
                "down" if is_lost else "not there yet",
                self._clean(fault),
                extra=log_fields(event="tier down", tier=self.name),
            )
        self.state, self.broken_because = "restarting", reason

    def _clean(self, text: str) -> str:
        """A text of the server without the key, which it may echo."""
        return text.replace(self._key, "***") if len(self._key) >= SECRET_CHARS else text


def _redact(request: Generate) -> Generate:
    messages = tuple(replace(item, content=redact(item.content).text) for item in request.messages)
    return replace(request, messages=messages)


async def _end(contents: AsyncIterator[bytes]) -> None:
    """Reads the end of a response, so that its connection can be used again."""
    with suppress(TimeoutError, StopAsyncIteration):
        async with asyncio.timeout(END_SECONDS):
            await anext(contents)


async def _read_some(response: httpx2.Response) -> bytes:
    """The beginning of a body."""
    found = b""
    async for content in response.aiter_bytes():
        found += content
        if len(found) > MAX_ERROR_BYTES:
            break
    return found[:MAX_ERROR_BYTES]
