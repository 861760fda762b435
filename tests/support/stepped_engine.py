"""Engines without a process, whose answers are their names and end when a test lets them."""

import asyncio

from limbeck.contracts.answer_policy import AnswerPolicy
from limbeck.contracts.errors import EngineDownError
from limbeck.serving.config import TierConfig
from limbeck.serving.engine.base import Engine, Generation
from limbeck.serving.engine.messages import Finished, Piece
from limbeck.serving.tier import Tier


class Stepped(Engine, Generation):
    """An engine whose answers are its name; `go` lets them end."""

    state = "ready"

    def __init__(self, name, *, text="", waits=False, error=None, dies=False, is_silent=False):
        self.text = text or name
        self.name, self.error, self.dies = name, error, dies
        self.is_silent = is_silent
        self.go = asyncio.Event()
        self.waiting = 0
        self.num_asked, self.num_cancelled, self.is_stopped = 0, 0, False
        if not waits:
            self.go.set()

    @property
    def num_waiting(self):
        return self.waiting

    @property
    def num_running(self):
        return 0

    def start(self):
        pass

    async def stop(self):
        self.is_stopped = True

    def submit(self, request):
        self.num_asked += 1
        if self.error:
            raise self.error
        return self

    async def __aiter__(self):
        if self.dies:
            self.state = "restarting"
            raise EngineDownError("died")
        if self.is_silent:
            await self.go.wait()
        yield Piece(1, 0, self.text)
        await self.go.wait()
        assert not self.is_stopped
        yield Finished(1, 0, "stop", 7, 3, 0.8, None, False)

    def cancel(self):
        self.num_cancelled += 1


def make_tier(engine, *, name="only", policy=None, **settings):
    config = TierConfig(name=name, model=name, **settings)
    return Tier(config, engine, policy or AnswerPolicy(), f"key of {engine.name}")
