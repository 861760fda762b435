"""The process that a model works in: commands come through a pipe, events go back.

It ends with the server: a closed pipe ends it, whatever it is doing.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from limbeck.contracts.answer_policy import AnswerPolicy, read_policy
from limbeck.contracts.errors import LimbeckError
from limbeck.env.threads import NumThreads
from limbeck.runtimes import open_chat_model
from limbeck.serving.engine.decoding import DecodingLoop
from limbeck.serving.engine.messages import (
    Broken,
    Cancel,
    Command,
    Event,
    Generate,
    Ready,
    Stop,
    pack,
)
from limbeck.serving.log import places_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSettings:
    """What a process needs to know to open its model."""

    folder: Path
    num_slots: int
    num_threads: NumThreads
    niceness: int = 0
    """Above 0, other processes go first; Windows has none."""
    max_prefix_bytes: int = 0
    """Of what earlier prompts left, for later ones that begin alike."""


def work(connection: Connection, settings: WorkerSettings) -> None:
    """Answer until a `Stop` comes or the server is gone."""
    # Ctrl-C reaches the whole group; the server decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if settings.niceness and sys.platform != "win32":
        os.nice(settings.niceness)
    try:
        loop = _open(connection, settings)
        if loop is not None:
            _serve_until_fault(connection, loop)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _open(connection: Connection, settings: WorkerSettings) -> DecodingLoop | None:
    try:
        answerer = open_chat_model(
            settings.folder, num_threads=settings.num_threads, num_rows=settings.num_slots
        )
        policy: AnswerPolicy = read_policy(settings.folder)
    except LimbeckError as error:
        connection.send([Broken(str(error))])
        return None
    size = answerer.size()
    loop = DecodingLoop(
        answerer.model,
        chat=answerer.chat,
        policy=policy,
        num_slots=settings.num_slots,
        max_prefix_bytes=settings.max_prefix_bytes,
    )
    connection.send(
        [
            Ready(
                size.parameters,
                size.weight_bytes,
                answerer.model.max_tokens,
                answerer.num_threads(),
            )
        ]
    )
    return loop


def _serve_until_fault(connection: Connection, loop: DecodingLoop) -> None:
    """Ends the process where answering fails: the message of what it met may quote a question."""
    try:
        _serve(connection, loop)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        logger.error("%s at %s", type(error).__name__, ", ".join(places_of(error.__traceback__)))
        sys.exit(1)


def _serve(connection: Connection, loop: DecodingLoop) -> None:
    while True:
        # A lone request never waits: commands are read between two tokens, and awaited without any.
        while not loop.has_work or connection.poll():
            commands: list[Command] = connection.recv()
            for command in commands:
                if isinstance(command, Stop):
                    return
                if events := _take(command, loop):
                    connection.send_bytes(pack(events))
        if events := loop.step():
            connection.send_bytes(pack(events))


def _take(command: Generate | Cancel, loop: DecodingLoop) -> list[Event]:
    if isinstance(command, Cancel):
        loop.cancel(command.id)
        return []
    return loop.submit(command)


WorkerLoop = Callable[[Connection, WorkerSettings], None]
"""What runs in the process."""
