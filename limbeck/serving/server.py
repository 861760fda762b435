"""The server's process: it starts, drains on SIGTERM, and ends."""

import asyncio
import contextlib
import logging
import socket
from types import FrameType
from typing import final

import uvicorn
from typing_extensions import override

from limbeck.contracts.errors import OpenAddressError
from limbeck.serving.api.admission import Admission
from limbeck.serving.keys import Keys
from limbeck.serving.log import log_fields
from limbeck.serving.one_write import OneWrite
from limbeck.serving.place import is_loopback

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
IDLE_SECONDS = 75
"""That a connection stays open for the next request: longer than proxies and pools of clients keep
theirs (nginx and load balancers 60 s). Who closes first loses no request to the other's timing."""


def check_address(host: str, *, keys: Keys) -> None:
    """Nothing, when the address is this machine's own or keys are asked for.

    Raises:
        OpenAddressError: anybody could ask.
    """
    if keys.is_open and not is_loopback(host):
        raise OpenAddressError(
            f"{host}: others can reach this address, and no key would be needed; make a key "
            "(limbeck keys NAME --file FILE) and name its file (--keys FILE), or serve on 127.0.0.1"
        )


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens: who connects before the server runs waits for it. 0 is a free port.

    Raises:
        OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen()  # who comes before the server has started waits, and is not refused
    except OSError:
        found.close()
        raise
    return found


@final
class Server(uvicorn.Server):
    """A server that, when it is to end, first finishes what it has begun.

    The first signal makes it unready: it refuses new requests, answers what it has taken, and ends
    when that is done or its time is up. The second one ends it at once.
    """

    def __init__(self, admission: Admission, *, drain_seconds: float) -> None:
        config = uvicorn.Config(
            admission,
            http=OneWrite,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            proxy_headers=False,  # nobody asks where a client is
            lifespan="on",
        )
        super().__init__(config)
        self._admission = admission
        self._drain_seconds = drain_seconds
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @override
    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._admission.is_draining or self._loop is None:
            super().handle_exit(sig, frame)
            return
        self._admission.is_draining = True
        self._loop.call_soon_threadsafe(self._begin_draining)

    def _begin_draining(self) -> None:
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        num_open = self._admission.num_inside
        logger.info("drain", extra=log_fields(event="drain", open_requests=num_open))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                while self._admission.num_inside:
                    await asyncio.sleep(POLL_SECONDS)
        if num_left := self._admission.num_inside:
            logger.warning("cut off", extra=log_fields(event="cut off", open_requests=num_left))
        self.should_exit = True
