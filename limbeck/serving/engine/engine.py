"""One model in a process of its own, as the server sees it: requests in, events out.

The event loop is never blocked: no more requests are handed over than the process reads at once,
the rest wait here. A process that dies is started again; what it was answering fails.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import multiprocessing
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import final

from typing_extensions import override

from limbeck.contracts.errors import EngineDownError, QueueFullError, RefusedError
from limbeck.serving.engine.base import Engine, EngineState, Generation
from limbeck.serving.engine.messages import (
    Broken,
    Cancel,
    Command,
    Event,
    Finished,
    Generate,
    Piece,
    Ready,
    Refused,
    Stop,
    pack,
)
from limbeck.serving.engine.queue_bound import QueueBound
from limbeck.serving.engine.restarts import MAX_STARTS, STOP_SECONDS, choose_wait
from limbeck.serving.engine.worker import WorkerLoop, WorkerSettings, work

logger = logging.getLogger(__name__)

NUM_AHEAD = 4
"""Requests handed over beyond the slots, so that a slot that frees is filled without a wait."""
REAP_SECONDS = 0.1


@final
class ProcessGeneration(Generation, AsyncIterator[Piece | Finished]):
    """The answers to one request, as they are written."""

    def __init__(self, engine: "ProcessEngine", request: Generate) -> None:
        self._engine = engine
        self.request = request
        self.num_ended = 0
        self._num_open = request.num_choices
        self.submitted = time.monotonic()
        self._events: deque[Event | EngineDownError] = deque()
        self._arrived = asyncio.Event()

    def put(self, event: Event | EngineDownError) -> None:
        """Takes what the engine has received."""
        self._events.append(event)
        self._arrived.set()

    @override
    def __aiter__(self) -> AsyncIterator[Piece | Finished]:
        return self  # a generator would be one more for the event loop to keep

    async def __anext__(self) -> Piece | Finished:
        """The next event."""
        if not self._num_open:
            raise StopAsyncIteration
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        event = self._events.popleft()
        if isinstance(event, EngineDownError):
            raise event
        if isinstance(event, Refused):
            raise RefusedError(event.message, is_too_long=event.kind == "prompt too long")
        assert isinstance(event, Piece | Finished)
        self._num_open -= isinstance(event, Finished)
        return event

    @override
    def cancel(self) -> None:
        if self.num_ended < self.request.num_choices:
            self._engine.cancel(self.request.id)


@dataclass
class _Process:
    process: BaseProcess
    connection: Connection
    running: dict[int, ProcessGeneration] = field(default_factory=dict)
    outgoing: list[Command] = field(default_factory=list)


@final
class ProcessEngine(Engine):
    """Starts the process of a model, keeps it alive, and hands requests to it."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        name: str,
        max_waiting: int,
        max_wait_seconds: float = math.inf,
        target: WorkerLoop = work,
    ) -> None:
        self.name = name
        self.settings = settings
        self._bound = QueueBound(
            num_slots=settings.num_slots,
            max_waiting=max_waiting,
            max_wait_seconds=max_wait_seconds,
        )
        self._target = target
        self._ids = itertools.count(1)
        self._waiting: deque[ProcessGeneration] = deque()
        self._worker: _Process | None = None
        self._num_starts = 0
        self._changed = asyncio.Event()
        self._restart: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The number of its process; 0 while there is none."""
        return (self._worker.process.pid or 0) if self._worker else 0

    @property
    @override
    def num_waiting(self) -> int:
        handed = len(self._worker.running) if self._worker else 0
        return len(self._waiting) + max(0, handed - self.settings.num_slots)

    @property
    @override
    def num_running(self) -> int:
        return min(len(self._worker.running), self.settings.num_slots) if self._worker else 0

    @override
    def start(self) -> None:
        self._num_starts += 1
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=self._target, args=(theirs, self.settings), daemon=True, name=self.name
        )
        process.start()
        theirs.close()
        self._worker = _Process(process, ours)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._read)

    async def wait_ready(self) -> Ready:
        """What the process says of its model, once it is open.

        Raises:
            EngineDownError: it cannot be opened.
        """
        while self.state in ("starting", "restarting"):
            self._changed.clear()
            await self._changed.wait()
        if self.state != "ready" or self.info is None:
            raise EngineDownError(self.broken_because or f"{self.name} is stopped")
        return self.info

    @override
    def submit(self, request: Generate) -> Generation:
        if self.state in ("broken", "stopped"):
            raise EngineDownError(self.broken_because or f"{self.name} is stopped")
        if self._bound.is_reached(self.num_waiting) and not self._has_room():
            raise QueueFullError(f"{self.num_waiting} requests wait for {self.name} already")
        generation = ProcessGeneration(self, replace(request, id=next(self._ids)))
        self._waiting.append(generation)
        self._hand_over()
        return generation

    def cancel(self, id_: int) -> None:
        """Forgets a request, wherever it is."""
        for generation in self._waiting:
            if generation.request.id == id_:
                self._waiting.remove(generation)
                return
        if self._worker and self._worker.running.pop(id_, None):
            self._send(Cancel(id_))
            self._hand_over()

    @override
    async def stop(self) -> None:
        self._set_state("stopped")
        if self._restart:
            self._restart.cancel()
        worker, self._worker = self._worker, None
        if worker is not None:
            loop = asyncio.get_running_loop()
            self._ending = loop.create_task(asyncio.to_thread(_end, worker.process))
            loop.remove_reader(worker.connection.fileno())
            with contextlib.suppress(OSError):  # it is gone already
                worker.connection.send([*worker.outgoing, Stop()])
                worker.outgoing.clear()
            worker.connection.close()
        self._fail([*(worker.running.values() if worker else ()), *self._waiting], "is stopped")
        self._waiting.clear()
        if self._ending is not None:
            await asyncio.shield(self._ending)  # who is cancelled here can stop it again

    def _has_room(self) -> bool:
        worker = self._worker
        return worker is not None and len(worker.running) < self.settings.num_slots

    def _hand_over(self) -> None:
        worker = self._worker
        if worker is None or self.state != "ready":
            return
        while self._waiting and len(worker.running) < self.settings.num_slots + NUM_AHEAD:
            generation = self._waiting.popleft()
            worker.running[generation.request.id] = generation
            self._send(generation.request)

    def _send(self, command: Command) -> None:
        """Sends it with all others of this turn of the event loop: each message wakes a process."""
        assert self._worker is not None
        if not self._worker.outgoing:
            asyncio.get_running_loop().call_soon(_flush, self._worker)
        self._worker.outgoing.append(command)

    def _read(self) -> None:
        worker = self._worker
        assert worker is not None
        try:
            # Called again while there is more; each look whether there is costs as much as a read.
            for event in worker.connection.recv():
                self._take(worker, event)
        except (EOFError, OSError):
            self._notice_end(worker)

    def _take(self, worker: _Process, event: Event) -> None:
        if isinstance(event, Ready):
            self.info = event
            self._set_state("ready")
            self._hand_over()
        elif isinstance(event, Broken):
            self.broken_because = event.message
        else:
            generation = worker.running.get(event.id)
            if generation is None:
                return  # cancelled meanwhile
            if isinstance(event, Finished):
                waited = event.started - generation.submitted if event.started else 0.0
                event = replace(event, queue_seconds=max(0.0, waited))
                generation.num_ended += 1
                self._num_starts = 0
            generation.put(event)
            if isinstance(event, Refused) or generation.num_ended == generation.request.num_choices:
                del worker.running[event.id]
                self._bound.note_end(time.monotonic(), others_wait=bool(self._waiting))
                self._hand_over()

    def _notice_end(self, worker: _Process) -> None:
        asyncio.get_running_loop().remove_reader(worker.connection.fileno())
        worker.connection.close()
        worker.process.join(REAP_SECONDS)  # its pipe is closed, so it is gone or about to go
        self._worker = None
        self._fail(worker.running.values(), "died; it is being started again")
        self._start_again(
            f"its process died {self._num_starts} times (exit code {worker.process.exitcode})"
        )

    def _start_again(self, why: str) -> None:
        """Starts a process in a while; where that was tried often enough, the model is broken."""
        if self.broken_because or self._num_starts >= MAX_STARTS:
            self.broken_because = self.broken_because or f"{self.name}: {why}"
            logger.error("%s", self.broken_because)
            self._set_state("broken")
            self._fail(self._waiting, "is broken")
            self._waiting.clear()
            return
        logger.warning("%s: its process died and is started again", self.name)
        self.num_restarts += 1
        self._set_state("restarting")
        start = self._start_after(choose_wait(self._num_starts))
        self._restart = asyncio.get_running_loop().create_task(start)

    async def _start_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        try:
            self.start()
        except OSError as error:
            self._start_again(f"its process cannot be started ({error})")

    def _fail(self, generations: Iterable[ProcessGeneration], why: str) -> None:
        for generation in list(generations):
            generation.put(EngineDownError(f"{self.name} {why}"))

    def _set_state(self, state: EngineState) -> None:
        self.state = state
        self._changed.set()


def _flush(worker: _Process) -> None:
    commands, worker.outgoing = worker.outgoing, []
    if commands:
        with contextlib.suppress(OSError):  # its end is noticed by `_read`
            worker.connection.send_bytes(pack(commands))


def _end(process: BaseProcess) -> None:
    process.join(STOP_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
