"""A load generator that costs little beside what it measures: raw sockets, one process, no library.

It reads a job as JSON from standard input and writes what came back as JSON: of each request its
status, when it was due, its seconds, the seconds to the first byte of the body, and how many tokens
the server says that it wrote. `closed` clients ask again as soon as they are answered; in an `open`
job requests come by a Poisson process whatever the server does, so that a slow answer holds no
later question back (Schroeder, Wierman and Harchol-Balter 2006, "Open versus closed").

Imported, it is `run_job`, which starts that process and hands back its result.
"""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast, final
from urllib.parse import urlsplit

import uvloop

HEAD_END = b"\r\n\r\n"
LAST_CHUNK = b"\r\n0\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
TOKENS = re.compile(rb'"completion_tokens": *(\d+)')
EVENT = b"\ndata: {"
"""Where a stream says no number of tokens, its events are counted."""
REFUSED = (429, 503)
RETRY_SECONDS = 1.0
"""After which a client of a closed job asks again; servers say so in `Retry-After`."""
LOST = 0
"""The status of a request whose connection ended before its answer did."""


@dataclass(frozen=True)
class Job:
    """What is asked of a server, and how often."""

    url: str
    bodies: list[str]
    """JSON; each request takes the next one."""
    kind: Literal["closed", "open"] = "closed"
    headers: dict[str, str] = field(default_factory=dict)
    num_clients: int = 1
    """Of a closed job."""
    requests_per_second: float = 0.0
    """Of an open job."""
    seconds: float = 5.0
    """No request begins later."""
    grace_seconds: float = 60.0
    """That the last answers get beyond it; what is open then counts as unfinished."""
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a request."""

    status: int
    due_seconds: float
    """Since the beginning of the job."""
    seconds: float
    """From when it was due to its last byte."""
    first_seconds: float
    num_tokens: int


@dataclass(frozen=True)
class LoadResult:
    """What became of a job."""

    outcomes: list[Outcome]
    num_unfinished: int
    wall_seconds: float
    """To the last answer."""
    client_cpu_seconds: float


@final
class Connection(asyncio.Protocol):
    """One connection, kept for further requests, with at most one of them on its way."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[tuple[int, float, int]] | None = None
        self._received = bytearray()
        self._head_bytes = 0
        self._whole_bytes = 0
        self._first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        # uvloop's transports inherit from none of asyncio's.
        self._transport, self.is_open = cast(asyncio.Transport, transport), True

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer without a length ends here; one with a length is lost."""
        self.is_open = False
        if self._waiter and not self._waiter.done():
            is_whole = self._head_bytes and self._whole_bytes < 0 and CLOSE.search(self._head())
            self._finish(lost=not is_whole)

    def ask(self, payload: bytes) -> "asyncio.Future[tuple[int, float, int]]":
        """The status, the time of the first byte of the body, and the number of tokens."""
        assert self._transport is not None
        self._received.clear()
        self._head_bytes = self._whole_bytes = 0
        self._first = 0.0
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(payload)
        return self._waiter

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take more of an answer."""
        self._received += data
        if not self._head_bytes:
            self._read_head()
        if not self._head_bytes or self._waiter is None or self._waiter.done():
            return
        num_bytes = len(self._received)
        if num_bytes > self._head_bytes and not self._first:
            self._first = time.perf_counter()
        if 0 < self._whole_bytes <= num_bytes or (
            self._whole_bytes < 0 and self._received.endswith(LAST_CHUNK)
        ):
            self._finish(lost=False)

    def _head(self) -> bytes:
        return bytes(self._received[: self._head_bytes])

    def _read_head(self) -> None:
        end = self._received.find(HEAD_END)
        if end < 0:
            return
        self._head_bytes = end + len(HEAD_END)
        length = LENGTH.search(self._head())
        self._whole_bytes = self._head_bytes + int(length[1]) if length else -1

    def _finish(self, *, lost: bool) -> None:
        assert self._waiter is not None
        if lost:
            self._waiter.set_result((LOST, self._first, 0))
            return
        head = self._head()
        body = bytes(self._received[self._head_bytes :])
        counts = TOKENS.findall(body)
        num_tokens = int(counts[-1]) if counts else body.count(EVENT)
        if CLOSE.search(head):
            self.is_open = False
        self._waiter.set_result((int(head[9:12]), self._first or time.perf_counter(), num_tokens))


@final
class Generator:
    """Runs a job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        where = urlsplit(job.url)
        self._host, self._port = where.hostname or "127.0.0.1", where.port or 80
        self._payloads = [self._write(where.path, text.encode()) for text in job.bodies]
        self._next = 0
        self._idle: list[Connection] = []
        self._outcomes: list[Outcome] = []
        self._began = 0.0

    async def run(self) -> LoadResult:
        """Everything that came back."""
        job = self._job
        if job.kind == "closed":
            self._idle = [await self._connect() for _ in range(job.num_clients)]
        cpu = time.process_time()
        self._began = time.perf_counter()
        closed = job.kind == "closed"
        tasks: list[asyncio.Task[object]]
        tasks = self._begin_closed() if closed else await self._begin_open()
        left = self._began + job.seconds + job.grace_seconds - time.perf_counter()
        _, open_ = await asyncio.wait(tasks, timeout=max(0.1, left)) if tasks else (set(), set())
        for task in open_:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ends = [item.due_seconds + item.seconds for item in self._outcomes]
        return LoadResult(
            self._outcomes, len(open_), max(ends, default=0.0), time.process_time() - cpu
        )

    def _begin_closed(self) -> list["asyncio.Task[object]"]:
        return [asyncio.ensure_future(self._ask_again()) for _ in range(self._job.num_clients)]

    async def _ask_again(self) -> None:
        while time.perf_counter() - self._began < self._job.seconds:
            if await self._ask(time.perf_counter()) in REFUSED:
                await asyncio.sleep(RETRY_SECONDS)

    async def _begin_open(self) -> list["asyncio.Task[object]"]:
        drawn, due = random.Random(self._job.seed), self._began
        tasks: list[asyncio.Task[object]] = []
        while True:
            due += drawn.expovariate(self._job.requests_per_second)
            if due - self._began > self._job.seconds:
                return tasks
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            tasks.append(asyncio.ensure_future(self._ask(due)))

    async def _ask(self, due: float) -> int:
        payload = self._payloads[self._next % len(self._payloads)]
        self._next += 1
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
            if not connection.is_open:
                connection = await self._connect()
        except OSError:
            self._outcomes.append(self._describe(LOST, due, first=0.0, num_tokens=0))
            return LOST
        try:
            status, first, num_tokens = await connection.ask(payload)
        except asyncio.CancelledError:
            connection.close()
            raise
        self._outcomes.append(self._describe(status, due, first=first, num_tokens=num_tokens))
        if connection.is_open:
            self._idle.append(connection)
        else:
            connection.close()
        return status

    def _describe(self, status: int, due: float, *, first: float, num_tokens: int) -> Outcome:
        seconds = time.perf_counter() - due
        return Outcome(status, due - self._began, seconds, max(0.0, first - due), num_tokens)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, found = await loop.create_connection(Connection, self._host, self._port)
        return found

    def _write(self, path: str, body: bytes) -> bytes:
        lines = {
            "Host": f"{self._host}:{self._port}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **self._job.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def run_job(job: Job) -> LoadResult:
    """The result of a job, which runs in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(asdict(job)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    return LoadResult(**found | {"outcomes": [Outcome(*item) for item in found["outcomes"]]})


def main() -> None:
    """Run the job that standard input describes."""
    job = Job(**json.loads(sys.stdin.read()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(Generator(job).run())
    rows: dict[str, Any] = vars(result) | {
        "outcomes": [tuple(vars(item).values()) for item in result.outcomes]
    }
    json.dump(rows, sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # connections that are still open need no farewell


if __name__ == "__main__":
    main()
