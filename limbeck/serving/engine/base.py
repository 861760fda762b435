"""What answers for a tier: a model in a process of this machine, or whatever else can."""

import abc
from collections.abc import AsyncIterator
from typing import Literal

from limbeck.serving.engine.messages import Finished, Generate, Piece, Ready

EngineState = Literal["starting", "ready", "restarting", "broken", "stopped"]


class Generation(abc.ABC):
    """The answers to one request, as they are written."""

    @abc.abstractmethod
    def __aiter__(self) -> AsyncIterator[Piece | Finished]:
        """Pieces and ends, until every answer has ended.

        Raises:
            RefusedError: the model cannot answer it.
            EngineDownError: the model's process died meanwhile.
        """

    @abc.abstractmethod
    def cancel(self) -> None:
        """Stops computing within one token; a request that has ended stays as it is."""


class Engine(abc.ABC):
    """Takes requests for one model."""

    state: EngineState = "starting"
    info: Ready | None = None
    """What is known of the model; None before it was first ready."""
    num_restarts: int = 0
    broken_because: str = ""
    """Why it is broken; '' while it is not."""

    @property
    @abc.abstractmethod
    def num_waiting(self) -> int:
        """Requests that are not being answered yet."""

    @property
    @abc.abstractmethod
    def num_running(self) -> int:
        """Requests that are being answered."""

    @abc.abstractmethod
    def start(self) -> None:
        """Begins to get ready; requests may come at once."""

    @abc.abstractmethod
    async def stop(self) -> None:
        """Ends it; what is being answered fails."""

    @abc.abstractmethod
    def submit(self, request: Generate) -> Generation:
        """Begins to answer; the id of the request is set here.

        Raises:
            QueueFullError: too many wait already.
            EngineDownError: the model is broken or stopped.
        """
