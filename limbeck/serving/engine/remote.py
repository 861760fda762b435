"""A model behind another OpenAI-compatible server, as one of the service's engines.

Requests beyond the tier's rows wait here. The server is asked for its list of models again and
again: while that fails, requests are refused at once instead of waiting for a connection. Left out:
the connections (`remote_client`), what requests and events look like (`chat_stream`).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import final

from typing_extensions import override

from limbeck.contracts.errors import (
    EngineDownError,
    QueueFullError,
    RefusedError,
    ServingError,
)
from limbeck.serving.config import TierConfig
from limbeck.serving.engine.base import Engine, Generation
from limbeck.serving.engine.messages import Finished, Generate, Piece
from limbeck.serving.engine.queue_bound import QueueBound
from limbeck.serving.engine.remote_client import RemoteClient
from limbeck.serving.log import log_fields
from limbeck.serving.place import OpenAiHttp, is_loopback

logger = logging.getLogger(__name__)

PROBE_SECONDS = 10.0
"""Between two looks at a server that is there."""
RETRY_SECONDS = 0.5
"""Between the first two looks at one that is not; doubled for each further one."""
MAX_RETRY_SECONDS = 10.0
MAX_CLOSED_SECONDS = 60.0
"""A server that is full may keep requests away for so long."""
_Event = Piece | Finished | ServingError | None
"""None: nothing follows."""


@final
class RemoteGeneration(Generation):
    """The answers to one request, as they come over the network."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[_Event] = asyncio.Queue()
        self.work: asyncio.Task[None] | None = None

    def put(self, event: _Event) -> None:
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
        self.num_answered = 0
        self._config = config
        self._place = place
        self._key = key
        self._bound = QueueBound(
            num_slots=config.max_rows,
            max_waiting=config.max_waiting,
            max_wait_seconds=config.max_wait_seconds,
        )
        self._free = asyncio.Semaphore(config.max_rows)
        self._open: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        """Those of the open ones that have no row."""
        self._client: RemoteClient | None = None
        self._watching: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        self._closed_until = 0.0

    @property
    @override
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    @override
    def num_running(self) -> int:
        return len(self._open) - len(self._waiting)

    @override
    def start(self) -> None:
        place = self._place
        client = self._client = RemoteClient(
            place,
            model=self._config.model,
            key=self._key,
            num_connections=self._config.max_rows,
        )
        if not is_loopback(place.host):
            logger.warning(
                "%s: conversations are sent to %s, %s",
                self.name,
                place.host,
                "redacted" if place.redacts else "as they are",
                extra=log_fields(event="sends out", tier=self.name, redacted=place.redacts),
            )
        self._watching = asyncio.get_running_loop().create_task(self._poll(client))

    @override
    async def stop(self) -> None:
        self.state = "stopped"
        tasks = [*self._open, *([self._watching] if self._watching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    @override
    def submit(self, request: Generate) -> Generation:
        client = self._client
        if client is None or self.state in ("restarting", "stopped"):
            raise EngineDownError(self.broken_because or f"{self.name} is stopped")
        if (left := self._closed_until - time.monotonic()) > 0:
            raise QueueFullError(f"{self.name}: its server is full", retry_seconds=left)
        if self._bound.is_reached(self.num_waiting) and self._free.locked():
            raise QueueFullError(f"{self.num_waiting} requests wait for {self.name} already")
        client.describe(request)  # what it does not read is refused here
        generation = RemoteGeneration()
        work = asyncio.get_running_loop().create_task(self._answer(request, generation, client))
        generation.work = work
        for tasks in (self._open, self._waiting):
            tasks.add(work)
            work.add_done_callback(tasks.discard)
        # Nobody waits for ever, also where it was cancelled before it began.
        work.add_done_callback(lambda _: generation.put(EngineDownError(f"{self.name} is stopped")))
        return generation

    async def _answer(
        self, request: Generate, generation: RemoteGeneration, client: RemoteClient
    ) -> None:
        try:
            async for event in self._stream(request, client):
                generation.put(event)
            generation.put(None)
        except ServingError as error:
            generation.put(self._name_error(error, client))
        except Exception as error:
            logger.exception("%s: a request failed", self.name)
            generation.put(EngineDownError(f"{self.name}: {type(error).__name__}"))

    async def _stream(
        self, request: Generate, client: RemoteClient
    ) -> AsyncIterator[Piece | Finished]:
        """The events of the answers, once a row is free."""
        submitted = time.monotonic()
        async with self._free:
            if task := asyncio.current_task():
                self._waiting.discard(task)
            waited = time.monotonic() - submitted
            async for event in client.stream(request, queue_seconds=waited):
                yield event
        self.num_answered += 1
        self._bound.note_end(time.monotonic(), others_wait=bool(self._waiting))

    def _name_error(self, error: ServingError, client: RemoteClient) -> ServingError:
        """The error with the tier's name; what it tells of the server is kept."""
        text = client.clean(f"{self.name}: {error}")
        if isinstance(error, QueueFullError):
            seconds = min(error.retry_seconds, MAX_CLOSED_SECONDS)
            self._closed_until = time.monotonic() + seconds
            return QueueFullError(text, retry_seconds=error.retry_seconds)
        if isinstance(error, RefusedError):
            return RefusedError(text, is_too_long=error.is_too_long)
        self._look.set()
        return type(error)(text)

    async def _poll(self, client: RemoteClient) -> None:
        """Looks at the server for ever, sooner where it is down or a request has failed."""
        seconds = RETRY_SECONDS
        while True:
            self._look.clear()
            try:
                fault = await client.find_fault()
            except Exception as error:
                logger.exception("%s: its server cannot be asked", self.name)
                fault = type(error).__name__
            self._note(fault)
            seconds = min(2 * seconds, MAX_RETRY_SECONDS) if fault else RETRY_SECONDS
            await asyncio.sleep(RETRY_SECONDS)  # however many requests fail
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds if fault else PROBE_SECONDS):
                    await self._look.wait()

    def _note(self, fault: str) -> None:
        """Keeps whether the server is there, and logs it where it has changed."""
        before = self.state
        if not fault and before != "ready":
            self.state, self.broken_because = "ready", ""
            level = logging.INFO if before == "starting" else logging.WARNING
            fields = log_fields(event="tier up", tier=self.name)
            logger.log(level, "%s: its server is there", self.name, extra=fields)
        if fault and before != "restarting":
            self.num_restarts += before == "ready"
            logger.warning(
                "%s: its server is %s (%s); it is asked again and again",
                self.name,
                "down" if before == "ready" else "not there yet",
                fault,
                extra=log_fields(event="tier down", tier=self.name),
            )
        if fault:
            self.state, self.broken_because = "restarting", f"{self.name}: {fault}"
