"""Brings the models into service that their source names: opened beside those that answer.

A new model works in a process of its own before the first request goes to it; the old one ends
when its last request has. What cannot be opened changes nothing, and is reported.
"""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Literal, Protocol, final, runtime_checkable

from limbeck.contracts.errors import EngineDownError, LimbeckError
from limbeck.serving.config import TierConfig
from limbeck.serving.engine.base import Engine
from limbeck.serving.log import log_fields
from limbeck.serving.open import ServedModel, open_tier
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.rollout.source import Assignment, ModelSource
from limbeck.serving.tier import Tier

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
READY_SECONDS = 0.05
"""Between two looks at a process that opens a model."""
SHADOW_NICENESS = 10
"""Of a process that answers copies only: it gets what time the others leave."""


@runtime_checkable
class OpenTier(Protocol):
    """Makes a tier whose model is still to be started."""

    def __call__(self, config: TierConfig, *, model: ServedModel, niceness: int) -> Tier:
        """The tier; the nicer, the less processor time its model takes."""
        ...


@dataclass
class TierRollout:
    """What became of the models that a tier should have had."""

    num_switches: int = 0
    num_failures: int = 0
    fault: str = ""
    """Why the champion that is named does not answer; '' where it does."""
    candidate_fault: str = ""
    tried: Assignment | None = None
    tried_candidate: Assignment | None = None


@final
class Rollout:
    """Follows a source of models for as long as it runs."""

    def __init__(
        self,
        live: LiveService,
        *,
        source: ModelSource,
        opens: OpenTier = open_tier,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._live = live
        self._opens = opens
        self._source = source
        self._poll_seconds = poll_seconds
        self.tiers = {
            name: TierRollout() for name, tier in live.tiers.items() if tier.config.remote is None
        }
        self._beside: set[Engine] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def num_beside(self) -> int:
        """Models in memory that get no new request: they are being opened, or finish."""
        return len(self._beside)

    def faults(self) -> dict[str, str]:
        """Why a tier does not have the models that it should have, by its name."""
        found = {
            name: "; ".join(filter(None, (state.fault, state.candidate_fault)))
            for name, state in self.tiers.items()
        }
        return {name: fault for name, fault in found.items() if fault}

    def start(self) -> None:
        """Begins to follow; a running event loop is needed."""
        for name in self.tiers:
            self._spawn(self._follow(self._live.tiers[name].config))

    async def stop(self) -> None:
        """Ends what is being opened and what was to finish."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(engine.stop() for engine in self._beside))
        self._beside.clear()

    async def _follow(self, config: TierConfig) -> None:
        while True:
            await self.follow_once(config)
            await asyncio.sleep(self._poll_seconds)

    async def follow_once(self, config: TierConfig) -> None:
        """Brings a tier to what the source names now; faults are noted, never raised."""
        state = self.tiers[config.name]
        try:
            wanted = await asyncio.to_thread(self._source.find, config)
        except Exception as error:
            self._note(config.name, "champion", _describe(error))
            return
        try:
            await self._follow_champion(config, wanted=wanted, state=state)
        except Exception as error:
            state.num_failures += 1
            self._note(config.name, "champion", _describe(error), key=wanted.champion.key)
        try:
            await self._follow_candidate(config, wanted=wanted, state=state)
        except Exception as error:
            key = wanted.candidate.key if wanted.candidate else ""
            self._note(config.name, "candidate", _describe(error), key=key)

    async def _follow_champion(
        self, config: TierConfig, *, wanted: Assignment, state: TierRollout
    ) -> None:
        present = self._live.tiers[config.name]
        if wanted.champion.key == present.model_key:
            state.fault, state.tried = "", None
            return
        if state.tried == wanted:
            return  # it could not be opened; the next change of the source is a new attempt
        state.tried = wanted
        adopted = self._find_open(config, wanted.champion)
        tier = adopted or await self._open(config, wanted.champion, niceness=0)
        if not adopted and not await self._is_still_named(config, wanted, tier):
            return
        self._beside.discard(tier.engine)
        self._retire(config, self._live.switch(tier))
        state.num_switches += 1
        state.fault, state.tried = "", None
        logger.warning(
            "%s: %s answers now",
            config.name,
            tier.model_key,
            extra=log_fields(event="switch", tier=config.name, model_key=tier.model_key),
        )

    async def _is_still_named(self, config: TierConfig, wanted: Assignment, tier: Tier) -> bool:
        """Whether the source still names a champion that took a while to open; else it is ended."""
        is_named = False
        try:
            named = await asyncio.to_thread(self._source.find, config)
            is_named = named.champion == wanted.champion
        finally:
            if not is_named:
                self.tiers[config.name].tried = None
                await self._end(tier.engine)
        return is_named

    async def _follow_candidate(
        self, config: TierConfig, *, wanted: Assignment, state: TierRollout
    ) -> None:
        name = config.name
        present = self._live.candidates.get(name)
        model = wanted.candidate if config.wants_candidate else None
        if model is not None and model.key == self._live.tiers[name].model_key:
            model = None
        if model is not None and present is not None and present.model_key == model.key:
            if present.engine.state == "broken":
                self._note(name, "candidate", present.engine.broken_because, key=model.key)
            return
        if present is not None:  # its place in memory is free before the next one is opened
            self._live.drop_candidate(name)
            self._retire(config, present)
        if model is None:
            state.candidate_fault, state.tried_candidate = "", None
            return
        if state.tried_candidate == wanted:
            return
        state.tried_candidate = wanted
        niceness = 0 if config.canary.share else SHADOW_NICENESS
        tier = await self._open(config, model, niceness=niceness)
        self._beside.discard(tier.engine)
        self._live.set_candidate(tier)
        state.candidate_fault, state.tried_candidate = "", None
        logger.warning(
            "%s: candidate %s is open",
            name,
            model.key,
            extra=log_fields(event="candidate", tier=name, model_key=model.key),
        )

    def _find_open(self, config: TierConfig, model: ServedModel) -> Tier | None:
        """The candidate that is to be champion, where it is open and as fast as a champion."""
        found = self._live.candidates.get(config.name)
        if found is None or found.model_key != model.key or not config.canary.share:
            return None
        return found if found.engine.state == "ready" else None

    async def _open(self, config: TierConfig, model: ServedModel, *, niceness: int) -> Tier:
        """A tier whose model is ready.

        Raises:
            LimbeckError: it cannot be opened.
        """
        await asyncio.to_thread(self._source.verify, model)
        tier = await asyncio.to_thread(self._opens, config, model=model, niceness=niceness)
        await asyncio.to_thread(self._live.prepare, tier)
        engine = tier.engine
        self._beside.add(engine)
        engine.start()
        while engine.state in ("starting", "restarting"):
            await asyncio.sleep(READY_SECONDS)
        if engine.state != "ready":
            await self._end(engine)
            raise EngineDownError(engine.broken_because or f"{model.folder} cannot be opened")
        return tier

    def _retire(self, config: TierConfig, tier: Tier) -> None:
        self._beside.add(tier.engine)
        self._spawn(self._finish(config, tier))

    async def _finish(self, config: TierConfig, tier: Tier) -> None:
        await self._live.wait_unused(tier.engine)
        await self._end(tier.engine)
        logger.info(
            "%s: %s has finished its last request",
            config.name,
            tier.model_key,
            extra=log_fields(event="retire", tier=config.name, model_key=tier.model_key),
        )

    async def _end(self, engine: Engine) -> None:
        await engine.stop()
        self._beside.discard(engine)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _note(
        self, name: str, role: Literal["champion", "candidate"], fault: str, *, key: str = ""
    ) -> None:
        """Keeps a fault, and logs it where it is a new one."""
        state = self.tiers[name]
        known = state.fault if role == "champion" else state.candidate_fault
        if role == "champion":
            state.fault = fault
        else:
            state.candidate_fault = fault
        if fault != known:
            logger.error(
                "%s: the %s is not in service: %s",
                name,
                role,
                fault,
                extra=log_fields(event="switch failed", tier=name, model_key=key),
            )


def _describe(error: Exception) -> str:
    if isinstance(error, LimbeckError):
        return str(error)
    logger.exception("a model could not be brought into service")
    return f"{type(error).__name__}: {error}"
