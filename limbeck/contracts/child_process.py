"""A fresh process that holds one worker and runs its methods by name.

A child imports nothing heavy by itself, so that the environment it sets is read by every library.
Left out: what the workers do, and in which order they are called.
"""

import logging
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, final

from limbeck.contracts.errors import CheckpointError, LimbeckError

STOP_SECONDS = 5.0
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""Idle threads sleep, so that a waiting process takes nothing from one that computes."""


@final
class ChildProcess:
    """A spawned process and the pipe to it; used by one thread at a time."""

    def __init__(self, name: str, make_worker: Callable[[], object]) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, make_worker), daemon=True)
        self.process.start()
        theirs.close()

    def call(self, method: str, **arguments: Any) -> Any:
        """What the worker's method gives back.

        Raises:
            LimbeckError: what the method raised.
            CheckpointError: the process has died.
        """
        self.send(method, **arguments)
        return self.receive()

    def send(self, method: str, **arguments: Any) -> None:
        """Have a method called; its reply waits in the pipe."""
        try:
            self.connection.send((method, arguments))
        except OSError:
            raise self._died() from None

    def receive(self) -> Any:
        """The reply to the oldest call that has none yet; raises as `call` does."""
        try:
            outcome, value = self.connection.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if outcome == "error":
            raise value
        assert outcome == "ok", value
        return value

    def _died(self) -> CheckpointError:
        self.process.join(STOP_SECONDS)
        return CheckpointError(
            f"{self.name}: its process ended with exit code {self.process.exitcode} (-9: killed, "
            "often for want of memory); free memory, or open fewer models at once"
        )


@contextmanager
def spawn(name: str, make_worker: Callable[[], object]) -> Iterator[ChildProcess]:
    """A process whose worker `make_worker`, a picklable callable, makes; it ends with the block."""
    child = ChildProcess(name, make_worker)
    try:
        yield child
    except BaseException:
        # Another thread that waits for its reply then waits no longer.
        child.process.kill()
        raise
    finally:
        child.connection.close()
        child.process.join(STOP_SECONDS)
        if child.process.is_alive():
            child.process.kill()
            child.process.join()


def serve(connection: Connection, make_worker: Callable[[], object]) -> None:
    """Call the methods that `(name, arguments)` messages ask for, until the other end closes.

    Replies are `("ok", value)`, `("error", error)` for what a user can mend, and `("bug", text)`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(ENVIRONMENT)
    logging.disable(logging.INFO)
    worker = make_worker()
    while True:
        try:
            method, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            reply = ("ok", getattr(worker, method)(**arguments))
        except LimbeckError as error:
            reply = ("error", error)
        except Exception:
            reply = ("bug", traceback.format_exc())
        try:
            connection.send(reply)
        except OSError:
            return
