"""A GGUF file as one of the service's engines: llama.cpp's own server in a process of the tier.

The process listens on this machine only, and asks for a key that it gets from here. One that dies
is started again; what it was answering fails. Left out: the requests (`remote`).

llama.cpp reads the names of control tokens as these tokens wherever they stand, in a user's words
as well. So they are broken before: nobody's words open a turn.
"""

import asyncio
import contextlib
import json
import logging
import re
import secrets
import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import final

from typing_extensions import override

from limbeck.contracts.errors import EngineDownError, QueueFullError
from limbeck.env.threads import choose_threads, count_free_cores
from limbeck.models.gguf.header import read_control_tokens
from limbeck.serving.config import TierConfig
from limbeck.serving.engine.base import Engine, EngineState, Generation
from limbeck.serving.engine.messages import Finished, Generate, Piece
from limbeck.serving.engine.remote import RemoteEngine
from limbeck.serving.engine.restarts import MAX_STARTS, STOP_SECONDS, choose_wait
from limbeck.serving.place import LlamaCpp, OpenAiHttp

logger = logging.getLogger(__name__)

SCRIPT = Path(__file__).with_name("llama_cpp_process.py")
SILENT_SECONDS = 3600.0
"""A long prompt takes minutes without a byte; the request's own limits end it before."""
BREAK = "\u200b"
"""Goes into a control token that somebody writes: a zero width space."""
NUM_LOG_LINES = 5
"""Kept of its log, for the case that it cannot open the file; requests are not in it."""


@final
class EarlyGeneration(Generation):
    """The answers to a request that came before the model was open."""

    def __init__(self, engine: "LlamaCppEngine", request: Generate) -> None:
        self._engine = engine
        self._request = request
        self._begun: Generation | None = None
        self._is_cancelled = False

    @override
    async def __aiter__(self) -> AsyncIterator[Piece | Finished]:
        try:
            await self._engine.wait_ready()
            if self._is_cancelled:
                raise EngineDownError(f"{self._engine.name}: the request was cancelled")
            self._begun = self._engine.submit(self._request)
        finally:
            self._engine.early.discard(self)
        async for event in self._begun:
            yield event

    @override
    def cancel(self) -> None:
        self._is_cancelled = True
        self._engine.early.discard(self)
        if self._begun is not None:
            self._begun.cancel()


@final
class LlamaCppEngine(Engine):
    """Starts llama.cpp's server, keeps it alive, and hands requests to it."""

    def __init__(self, config: TierConfig, place: LlamaCpp, *, path: Path) -> None:
        if find_spec("xllamacpp") is None:
            raise ModuleNotFoundError("a GGUF file needs xllamacpp", name="xllamacpp")
        self.name = config.name
        self.early: set[EarlyGeneration] = set()
        """Requests that wait for the model to be open."""
        self._config = config
        self._place = place
        self._path = path
        self._key = secrets.token_urlsafe(32)
        self._control: re.Pattern[str] | None = None
        self._server: RemoteEngine | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._changed = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The number of its process; 0 while there is none."""
        return self._process.pid if self._process else 0

    @property
    @override
    def num_waiting(self) -> int:
        return len(self.early) + (self._server.num_waiting if self._server else 0)

    @property
    @override
    def num_running(self) -> int:
        return self._server.num_running if self._server else 0

    @override
    def start(self) -> None:
        self._life = asyncio.get_running_loop().create_task(self._live())

    async def wait_ready(self) -> None:
        """Returns when the model is open.

        Raises:
            EngineDownError: it cannot be opened, or died.
        """
        while self.state == "starting":
            self._changed.clear()
            await self._changed.wait()
        if self.state != "ready":
            raise EngineDownError(self.broken_because or f"{self.name} is stopped")

    @override
    def submit(self, request: Generate) -> Generation:
        if self.state == "starting":
            if len(self.early) >= self._config.max_waiting:
                raise QueueFullError(f"{len(self.early)} requests wait for {self.name} already")
            generation = EarlyGeneration(self, request)
            self.early.add(generation)
            return generation
        if self.state != "ready" or self._server is None:
            raise EngineDownError(self.broken_because or f"{self.name} is stopped")
        return self._server.submit(self._break_control_tokens(request))

    @override
    async def stop(self) -> None:
        self._set_state("stopped")
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
        await self._end()  # where it was just doing so, that was cancelled

    async def _live(self) -> None:
        """Starts the process again and again, until it is broken or this is stopped."""
        num_starts = 0
        while True:
            num_starts += 1
            log: deque[str] = deque(maxlen=NUM_LOG_LINES)
            try:
                if await self._serve_once(log):
                    num_starts = 0
            except Exception as error:  # nobody awaits this task, so that it may not end in one
                log.append(str(error))
            finally:
                await self._end()
            if num_starts >= MAX_STARTS:
                last_lines = " | ".join(log)
                what = f"llama.cpp ended {num_starts} times with {self._path.name}"
                self.broken_because = f"{self.name}: {what}: {last_lines}"
                logger.error("%s", self.broken_because)
                self._set_state("broken")
                return
            self.num_restarts += 1
            self.broken_because = f"{self.name} died; it is being started again"
            logger.warning("%s: its process died and is started again", self.name)
            if self.state == "ready":
                self._set_state("restarting")
            await asyncio.sleep(choose_wait(num_starts))

    async def _serve_once(self, log: deque[str]) -> bool:
        """Whether it has answered a request before its process ended."""
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", str(SCRIPT)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdin and process.stdout and process.stderr
        reading = asyncio.create_task(_read_log(process.stderr, log))
        try:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(json.dumps(self._settings()).encode() + b"\n")
                await process.stdin.drain()
            if self._control is None:  # while it reads the file
                self._control = await asyncio.to_thread(_compile_control_tokens, self._path)
            address = (await process.stdout.readline()).decode("utf-8", "replace").strip()
            if not address:
                await process.wait()
                return False
            if not address.startswith("http://"):
                raise ValueError(f"it wrote {address!r}, expected its address")
            there = OpenAiHttp(
                kind="openai_http",
                url=f"{address}/v1",
                redact="never",
                idle_seconds=SILENT_SECONDS,
            )
            self._server = RemoteEngine(self._config, there, key=self._key)
            self._server.start()
            self.broken_because = ""
            self._set_state("ready")
            await process.wait()
            return self._server.num_answered > 0
        finally:
            if process.returncode is not None:
                await reading  # what it wrote last says why
            reading.cancel()

    def _break_control_tokens(self, request: Generate) -> Generate:
        assert self._control is not None
        messages = [
            replace(item, content=self._control.sub(_break, item.content))
            for item in request.messages
        ]
        return replace(request, messages=tuple(messages))

    async def _end(self) -> None:
        """Closes the connections and ends the process; cancelled half-way, it can be done again."""
        if self._server is not None:
            await self._server.stop()
            self._server = None
        if self._process is None:
            return
        assert self._process.stdin
        self._process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._process = None

    def _settings(self) -> dict[str, str | int]:
        return {
            "path": str(self._path),
            "alias": self._config.model,
            "key": self._key,
            "num_slots": self._config.max_rows,
            "context_tokens": self._place.context_tokens,
            "num_threads": self._num_threads(),
        }

    def _num_threads(self) -> int:
        chosen = self._config.num_threads
        if chosen != "auto":
            return chosen
        # A weight has about a byte; whether steps are shared does not hang on a factor of two.
        return choose_threads(
            active_parameters=self._path.stat().st_size,
            step_tokens=1,
            num_free_cores=count_free_cores(),
        ).num_threads

    def _set_state(self, state: EngineState) -> None:
        self.state = state
        self._changed.set()


def _compile_control_tokens(path: Path) -> re.Pattern[str]:
    longest_first = sorted(read_control_tokens(path), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _break(token: re.Match[str]) -> str:
    return token[0][0] + BREAK + token[0][1:]


async def _read_log(stream: asyncio.StreamReader, log: deque[str]) -> None:
    """Keeps the last lines, however long they are: a full pipe would stop the process."""
    rest = b""
    while content := await stream.read(2**16):
        *lines, rest = (rest + content).split(b"\n")
        log.extend(line.decode("utf-8", "replace")[:300] for line in lines if line.strip())
        rest = rest[-(2**16) :]
