"""Candidates answer copies of what champions have answered; nobody waits for them or reads them.

A copy starts when the champion's answer has ended, in the candidate's own process, which other
processes go before. While any request waits, copies are given up. Left out: judging the answers;
they stand in the journal, beside the champion's.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import final

from limbeck.contracts.errors import LimbeckError
from limbeck.contracts.exchange import SHADOW, Exchange
from limbeck.env.seeds import draw_share
from limbeck.serving.metrics import Metrics, ShadowOutcome
from limbeck.serving.recorder import Recording
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.service import ServiceRequest
from limbeck.serving.tier import Tier

logger = logging.getLogger(__name__)

GIVE_WAY_SECONDS = 0.02
"""Between two looks at whether a request waits."""


@final
class Shadows:
    """Copies that are being answered."""

    def __init__(
        self,
        live: LiveService,
        *,
        metrics: Metrics,
        keep: Callable[[Exchange], object] | None,
        seconds: float,
    ) -> None:
        self._live = live
        self._metrics = metrics
        self._keep = keep
        self._seconds = seconds
        self._running: dict[asyncio.Task[None], str] = {}

    def offer(self, incoming: ServiceRequest, answered: Recording) -> None:
        """Has a copy of a request answered, if it falls in the share of its tier."""
        route = answered.route
        if route is None or answered.end is None or route.role != "champion":
            return
        tier = self._live.candidates.get(route.tier)
        if tier is None or tier.config.shadow.share <= draw_share(
            incoming.sticky, name=f"shadow {route.tier}"
        ):
            return
        if incoming.generate.images or self._is_busy(tier):  # images are kept for one answer only
            self._metrics.observe_shadow(route.tier, "left out")
            return
        task = asyncio.ensure_future(self._answer(incoming, answered, tier=route.tier))
        self._running[task] = route.tier
        task.add_done_callback(self._running.pop)

    @property
    def num_running(self) -> int:
        """Copies that are being answered."""
        return len(self._running)

    async def stop(self) -> None:
        """Gives up every copy."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_busy(self, tier: Tier) -> bool:
        num_running = [*self._running.values()].count(tier.config.name)
        is_full = num_running >= tier.config.shadow.max_running
        return is_full or tier.engine.state != "ready" or self._is_waited_for()

    def _is_waited_for(self) -> bool:
        """Whether a request of somebody waits for a row."""
        return any(tier.engine.num_waiting for tier in self._live.tiers.values())

    async def _answer(self, incoming: ServiceRequest, answered: Recording, *, tier: str) -> None:
        copy = replace(incoming, model=tier, generate=replace(incoming.generate, num_choices=1))
        work = asyncio.ensure_future(self._record(copy, answered, tier=tier))
        outcome: ShadowOutcome = "left out"
        try:
            async with asyncio.timeout(self._seconds):
                while not (await asyncio.wait({work}, timeout=GIVE_WAY_SECONDS))[0]:
                    if self._is_waited_for():
                        return
            found = work.result()
            outcome = "same" if found.whole_text() == answered.whole_text() else "different"
            if self._keep is not None and found.exchange is not None:
                self._keep(found.exchange)
        except LimbeckError as error:
            outcome = "failed"
            logger.debug("a copy was not answered: %s", error)
        except TimeoutError:
            outcome = "failed"
        except Exception:  # nobody awaits this task, and asyncio would log what the fault quotes
            outcome = "failed"
            logger.exception("a copy could not be answered")
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            self._metrics.observe_shadow(tier, outcome)

    async def _record(
        self, incoming: ServiceRequest, answered: Recording, *, tier: str
    ) -> Recording:
        """The candidate's answer, which nobody has written down yet."""
        id_ = f"{SHADOW}-{answered.id.removeprefix('chatcmpl-')}"
        names = frozenset({tier})
        with Recording(None, id_, answered.requested_model, answered.messages) as found:
            async with aclosing(
                self._live.answer_by(incoming, names=names, role="shadow")
            ) as events:
                async for event in events:
                    found.observe(event)
        return found
