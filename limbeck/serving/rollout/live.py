"""The models that answer now: requests under way keep those that they began with.

A `Service` holds models, policies and rules that never change. Here one `Service` takes the place
of another between two requests, and a share of the requests gets one with candidates in it. Left
out: how a new model is found and opened.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import final

from limbeck.contracts.errors import EngineDownError, NoTierError, QueueFullError
from limbeck.env.seeds import draw_share
from limbeck.serving.config import AUTO
from limbeck.serving.engine.base import Engine
from limbeck.serving.facts import FactStore
from limbeck.serving.service import ModelRole, Route, ServedEvent, Service, ServiceRequest
from limbeck.serving.tier import Meter, Tier

Compose = Callable[[Sequence[Tier]], Service]
"""The service of some tiers, from the largest to the smallest."""
CHAMPIONS: frozenset[str] = frozenset()
"""No tier's candidate: every request that is in no share."""


def _is_stand_in(first: ServedEvent, names: frozenset[str]) -> bool:
    """Whether another tier answers because a candidate did not."""
    return isinstance(first, Route) and not names.isdisjoint(first.failures)


@final
class LiveService:
    """Answers by the present champions, or by candidates where a request falls in their share."""

    def __init__(
        self,
        tiers: Sequence[Tier],
        *,
        compose: Compose,
        meters: Mapping[str, Meter] | None = None,
    ) -> None:
        self._compose = compose
        self.meters = meters or {}
        """What tiers were asked for, by their names; `compose` gives every service the same."""
        self._champions = {tier.config.name: tier for tier in tiers}
        self._candidates: dict[str, Tier] = {}
        self._services = {CHAMPIONS: compose(tiers)}
        self._uses: Counter[Engine] = Counter()
        self._freed = asyncio.Event()

    @property
    def tiers(self) -> Mapping[str, Tier]:
        """The champions, from the largest to the smallest."""
        return self._champions

    @property
    def candidates(self) -> Mapping[str, Tier]:
        """The candidates that are open, by the name of the tier."""
        return self._candidates

    @property
    def facts(self) -> FactStore:
        """What is answered before any model."""
        return self._services[CHAMPIONS].facts

    def start(self) -> None:
        """Opens the champions; requests may come at once."""
        for tier in self._champions.values():
            tier.engine.start()

    async def stop(self) -> None:
        """Ends every model."""
        tiers = [*self._champions.values(), *self._candidates.values()]
        await asyncio.gather(*(tier.engine.stop() for tier in tiers))

    def prepare(self, tier: Tier) -> None:
        """Does what takes a while of `switch` and of the first request to a candidate.

        Raises:
            LimbeckError: the rules of its model do not fit this service.
        """
        self._compose([*{**self._champions, tier.config.name: tier}.values()])

    def switch(self, tier: Tier) -> Tier:
        """The champion that was: from now on new requests of its name go to another one.

        A candidate that becomes the champion is a candidate no more.
        """
        name = tier.config.name
        old, self._champions = self._champions[name], {**self._champions, name: tier}
        if name in self._candidates and self._candidates[name].engine is tier.engine:
            del self._candidates[name]
        self._services = {CHAMPIONS: self._compose([*self._champions.values()])}
        return old

    def set_candidate(self, tier: Tier) -> None:
        """Lets a model take the share of its tier."""
        self._candidates[tier.config.name] = tier
        self._services = {CHAMPIONS: self._services[CHAMPIONS]}

    def drop_candidate(self, name: str) -> Tier | None:
        """The candidate that was; None where there is none."""
        self._services = {CHAMPIONS: self._services[CHAMPIONS]}
        return self._candidates.pop(name, None)

    async def wait_unused(self, engine: Engine) -> None:
        """Returns when no request is left that may still come to an engine."""
        while self._uses[engine]:
            self._freed.clear()
            await self._freed.wait()

    def answer(self, incoming: ServiceRequest) -> AsyncGenerator[ServedEvent]:
        """The events of an answer; closing the iterator ends the computing.

        Where a candidate fails before its first word, the champion answers.

        Raises:
            NoTierError: no tier has answered.
            QueueFullError, EngineDownError: the tier that was named did not, or it broke off.
            RefusedError: the model cannot read the prompt.
        """
        names = self._draw_canaries(incoming)
        return self._try(incoming, names) if names else self.answer_by(incoming, names=CHAMPIONS)

    async def _try(
        self, incoming: ServiceRequest, names: frozenset[str]
    ) -> AsyncGenerator[ServedEvent]:
        """The events of candidates, or of the champions where those fail."""
        async with aclosing(self.answer_by(incoming, names=names)) as events:
            try:
                begun = [await anext(events), await anext(events)]  # the route, the first word
            except (EngineDownError, QueueFullError, NoTierError):
                begun = []
            if begun and not _is_stand_in(begun[0], names):
                for event in begun:
                    yield event
                async for event in events:
                    yield event
                return
        async with aclosing(self.answer_by(incoming, names=CHAMPIONS)) as events:
            async for event in events:
                yield event

    async def answer_by(
        self, incoming: ServiceRequest, *, names: frozenset[str], role: ModelRole = "candidate"
    ) -> AsyncGenerator[ServedEvent]:
        """The events of an answer by the champions, and by the candidates of some tiers.

        Raises:
            NoTierError: no tier has answered.
            QueueFullError, EngineDownError: the tier that was named did not, or it broke off.
            RefusedError: the model cannot read the prompt.
        """
        service = self._service(names)
        tiers = (
            service.tiers.values() if incoming.model == AUTO else [service.tiers[incoming.model]]
        )
        engines = [tier.engine for tier in tiers]
        for engine in engines:
            self._uses[engine] += 1
        try:
            async with aclosing(service.answer(incoming)) as events:
                async for event in events:
                    if isinstance(event, Route) and event.tier in names:
                        event = replace(event, role=role)
                    yield event
        finally:
            for engine in engines:
                self._uses[engine] -= 1
                if not self._uses[engine]:
                    del self._uses[engine]
                    self._freed.set()

    def _draw_canaries(self, incoming: ServiceRequest) -> frozenset[str]:
        """The tiers whose candidate is to answer a request."""
        if not self._candidates:
            return CHAMPIONS
        return frozenset(
            name
            for name, tier in self._candidates.items()
            if incoming.model in (AUTO, name)
            and tier.engine.state == "ready"
            and draw_share(incoming.sticky, name=f"canary {name}") < tier.config.canary.share
        )

    def _service(self, names: frozenset[str]) -> Service:
        if not names <= self._candidates.keys():
            raise NoTierError("the candidate is there no more", is_full=False)
        if names not in self._services:
            chosen = {name: self._candidates[name] for name in names}
            self._services[names] = self._compose([*{**self._champions, **chosen}.values()])
        return self._services[names]
