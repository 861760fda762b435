"""A model in service, and what is asked of it: within its budget and within its time."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal

from limbeck.contracts.answer_policy import AnswerPolicy
from limbeck.contracts.errors import BudgetError, EngineDownError, ServingError, SlowTierError
from limbeck.serving.cascade import Failure, name_failure
from limbeck.serving.circuit import Circuit, Result
from limbeck.serving.config import TierConfig
from limbeck.serving.engine.base import Engine, Generation
from limbeck.serving.engine.messages import Finished, Generate, Piece
from limbeck.serving.minute import MinuteUses


@dataclass(frozen=True)
class Tier:
    """A model in service."""

    config: TierConfig
    engine: Engine
    policy: AnswerPolicy
    model_key: str
    """The artifact's content hash: which model exactly answered."""
    circuit: Circuit = field(default_factory=Circuit, compare=False)

    @property
    def can_be_unsure(self) -> bool:
        """Whether its answers may be declined, so that none is shown before it has ended."""
        return bool(self.policy.familiarity) or self.config.min_confidence_ratio not in (
            "calibration",
            0.0,
        )

    @property
    def is_open_to_auto(self) -> bool:
        """Whether `auto` goes to it.

        A local model that is not calibrated would answer whatever the smaller ones have declined;
        a server that a recipe names was chosen for that.
        """
        config = self.config
        is_set = config.min_confidence_ratio != "calibration"
        return bool(self.policy.familiarity) or config.remote is not None or is_set

    def is_sure(self, event: Finished) -> bool:
        """Whether an answer of it counts."""
        if event.is_repeating or event.status == "unknown":
            return False
        if event.status != "answered":
            return True  # a rule of another service has decided
        least = self.config.min_confidence_ratio
        if least == "calibration":
            return event.judgement is None or event.judgement.is_sure
        return least == 0 or (event.confidence_ratio or 0.0) >= least

    def confidence(self, event: Finished) -> float | None:
        """How sure an answer of it is: calibrated, or else the mean probability of its tokens.

        The latter only where a recipe sets a bound for it, or the model is at another server: of
        other models that are not calibrated it means nothing.
        """
        if event.judgement is not None:
            return event.judgement.confidence_ratio
        config = self.config
        is_known = config.remote is not None or config.min_confidence_ratio != "calibration"
        return event.confidence_ratio if is_known else None


@dataclass
class Meter:
    """What a tier was asked for, and how often it failed; it outlives the tier's models."""

    uses: MinuteUses = field(default_factory=MinuteUses)
    failures: Counter[Failure] = field(default_factory=Counter)
    num_requests: int = 0
    """All that it was given, drafts and copies that nobody was shown included."""
    num_input_tokens: int = 0
    """Of answers that have ended, shown or not."""
    num_output_tokens: int = 0

    def note_request(self, now: float) -> None:
        """Counts a request that the tier has taken."""
        self.uses.add(now, num_tokens=0)
        self.num_requests += 1

    def note_end(self, event: Finished) -> None:
        """Counts the tokens of one of several answers to one prompt, which is read once."""
        num_input_tokens = 0 if event.choice else event.num_prompt_tokens
        self.num_input_tokens += num_input_tokens
        self.num_output_tokens += event.num_tokens
        if num_tokens := num_input_tokens + event.num_tokens:
            self.uses.add(time.monotonic(), num_tokens=num_tokens)


async def ask_tier(
    tier: Tier, request: Generate, *, meter: Meter
) -> AsyncGenerator[Piece | Finished]:
    """The events of a tier's answer; closing the iterator ends the computing.

    The meter counts it, and how it failed.

    Raises:
        BudgetError: it has had what it may have in a minute.
        SlowTierError: it took longer than it may.
        ServingError: as its engine does.
    """
    generation, now, config = None, time.monotonic(), tier.config
    result: Result = "neither"
    try:
        generation = _submit(tier, request, meter=meter, now=now)
        events = aiter(generation)
        limit = _Limit(
            "first token",
            min(_seconds(config.max_first_token_seconds), _seconds(config.max_answer_seconds)),
        )
        while True:
            try:
                if limit.seconds == math.inf:
                    event = await anext(events)
                else:
                    async with asyncio.timeout(limit.seconds + now - time.monotonic()):
                        event = await anext(events)
            except StopAsyncIteration:
                result = "answered"
                return
            except TimeoutError:
                text = f"{config.name}: no {limit.what} within {limit.seconds:g} s"
                raise SlowTierError(text) from None
            limit = _Limit("end", _seconds(config.max_answer_seconds))
            if isinstance(event, Finished):
                meter.note_end(event)
            yield event
    except ServingError as error:
        meter.failures[name_failure(error)] += 1
        if isinstance(error, EngineDownError) and tier.engine.state == "ready":
            result = "failed"
        raise
    finally:
        if generation is not None:
            generation.cancel()
            tier.circuit.leave(result, began=now, now=time.monotonic(), config=config.circuit)


def _submit(tier: Tier, request: Generate, *, meter: Meter, now: float) -> Generation:
    budget = tier.config.budget
    if seconds := meter.uses.seconds_to_wait(
        now,
        requests_per_minute=budget.requests_per_minute,
        tokens_per_minute=budget.tokens_per_minute,
    ):
        raise BudgetError(
            f"{tier.config.name} has had what it may have in a minute (serve.tiers: budget)",
            retry_seconds=seconds,
        )
    tier.circuit.enter(tier.config.name, now, tier.config.circuit)
    try:
        generation = tier.engine.submit(request)
    except ServingError:
        tier.circuit.leave("neither", began=now, now=now, config=tier.config.circuit)
        raise
    meter.note_request(now)
    return generation


@dataclass(frozen=True)
class _Limit:
    what: Literal["first token", "end"]
    seconds: float
    """From when the tier was asked."""


def _seconds(setting: float | Literal["unlimited"]) -> float:
    return math.inf if setting == "unlimited" else setting
