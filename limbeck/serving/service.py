"""From a conversation to an answer: safety rules, the choice of a tier, the model, its confidence.

Left out: HTTP. What stands here gives an answer piece by piece, and says which tier wrote it, why,
and how sure it was.
"""

import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

from limbeck.contracts.answer_policy import AnswerPolicy
from limbeck.contracts.errors import LimbeckError
from limbeck.serving.config import AUTO, TierConfig
from limbeck.serving.engine.engine import Engine, EngineDownError, QueueFullError
from limbeck.serving.engine.messages import ChosenToken, Finished, FinishReason, Generate, Piece

Status = Literal["answered", "unknown", "refused", "withheld", "emergency"]
"""`refused`: a rule lets no model answer it; `withheld`: a rule held an answer back."""
Reason = Literal["named", "smallest tier", "escalated", "degraded", "emergency rule"]
UNKNOWN = {"zh": "不知道。", "en": "I do not know."}


class NoTierError(LimbeckError, RuntimeError):
    """Every tier that could answer is down, or has a full queue."""

    def __init__(self, message: str, *, is_full: bool) -> None:
        super().__init__(message)
        self.is_full = is_full


@dataclass(frozen=True)
class Tier:
    """A model in service."""

    config: TierConfig
    engine: Engine
    policy: AnswerPolicy
    model_key: str
    """The artifact's content hash: which model exactly answered."""


@dataclass(frozen=True)
class Route:
    """Who answers, and why."""

    tier: str
    """'' where no model was asked."""
    reason: Reason
    model_key: str = ""


@dataclass(frozen=True)
class Text:
    """More of one answer."""

    choice: int
    text: str
    tokens: tuple[ChosenToken, ...] = ()


@dataclass(frozen=True)
class End:
    """The end of one answer."""

    choice: int
    reason: FinishReason
    status: Status
    num_prompt_tokens: int
    num_tokens: int
    confidence_ratio: float | None
    """None where no model answered, or one that is not calibrated."""


@dataclass(frozen=True)
class Ask:
    """A request, and what the client wants of the service itself."""

    model: str
    generate: Generate
    show_unsure: bool = False
    """Drafts are shown however unsure the model is."""
    language: Literal["zh", "en"] = "zh"


ServedEvent = Route | Text | End
"""A `Route` comes first, once."""


@final
class Service:
    """The tiers, from the largest to the smallest, and the rules before them."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self.tiers: Mapping[str, Tier] = {tier.config.name: tier for tier in tiers}

    async def answer(self, asked: Ask) -> AsyncGenerator[ServedEvent]:
        """The events of an answer; closing the iterator ends the computing.

        Raises:
            NoTierError: no tier can take it.
            EngineDownError: the model's process died while it answered.
            RefusedError: the model cannot read the prompt.
        """
        found = self._find_emergency(asked)
        if found:
            yield Route("", "emergency rule")
            yield Text(0, found)
            yield End(0, "stop", "emergency", 0, 0, None)
            return
        async for event in self._answer_by_tier(asked):
            yield event

    def _find_emergency(self, asked: Ask) -> str:
        """The advice that the domain's rules give at once; empty where none applies."""
        question = asked.generate.messages[-1].content
        for tier in self.tiers.values():
            emergencies = tier.policy.find_emergencies(question)
            if emergencies:
                return "\n".join(
                    item.zh if asked.language == "zh" else item.en for item in emergencies
                )
        return ""

    async def _answer_by_tier(self, asked: Ask) -> AsyncGenerator[ServedEvent]:
        names = self._candidates(asked.model)
        reason: Reason = "named" if asked.model != AUTO else "smallest tier"
        failed: list[str] = []
        is_full = True
        for place, name in enumerate(names):
            tier, is_last = self.tiers[name], place == len(names) - 1
            request = fit(asked.generate, tier.config)
            try:
                generation = tier.engine.submit(request)
            except (QueueFullError, EngineDownError) as error:
                is_full = is_full and isinstance(error, QueueFullError)
                failed.append(str(error))
                reason = "degraded"
                continue
            route = Route(name, reason, tier.model_key)
            try:
                if asked.show_unsure or (is_last and not tier.policy.familiarity):
                    yield route
                    async for event in generation:
                        yield _as_served(event)
                    return
                held = [event async for event in generation]
            except EngineDownError as error:
                if is_last or asked.model != AUTO:
                    raise
                failed.append(str(error))
                reason, is_full = "degraded", False
                continue
            finally:
                generation.cancel()
            if not is_last and not _is_sure(held):
                reason = "escalated"
                continue
            yield route
            for event in _withhold_unsure(held, language=asked.language):
                yield event
            return
        raise NoTierError("; ".join(failed), is_full=is_full)

    def _candidates(self, model: str) -> list[str]:
        """Tiers in the order in which they are tried.

        `auto` goes up only to tiers that say when they do not know: one that is not calibrated
        would answer whatever the smaller ones have declined.
        """
        if model != AUTO:
            return [model]
        smallest_first = [*self.tiers][::-1]
        calibrated = [name for name in smallest_first if self.tiers[name].policy.familiarity]
        return calibrated or smallest_first[:1]


def fit(request: Generate, config: TierConfig) -> Generate:
    """The request with the tier's own limits."""
    wanted = request.max_new_tokens or config.max_new_tokens
    return replace(request, max_new_tokens=min(wanted, config.max_new_tokens_limit))


def draw_seed() -> int:
    """A seed for a request that names none."""
    return secrets.randbits(63)


def _as_served(event: Piece | Finished) -> Text | End:
    if isinstance(event, Piece):
        return Text(event.choice, event.text, event.tokens)
    judgement = event.judgement
    return End(
        event.choice,
        event.reason,
        "answered",
        event.num_prompt_tokens,
        event.num_tokens,
        None if judgement is None else judgement.confidence_ratio,
    )


def _is_sure(held: Sequence[Piece | Finished]) -> bool:
    return all(_shown(event) for event in held if isinstance(event, Finished))


def _shown(event: Finished) -> bool:
    return not event.is_repeating and (event.judgement is None or event.judgement.is_sure)


def _withhold_unsure(
    held: Sequence[Piece | Finished], *, language: Literal["zh", "en"]
) -> list[Text | End]:
    """The events, with "I do not know" in the place of answers that the model is not sure of."""
    unsure = {event.choice for event in held if isinstance(event, Finished) and not _shown(event)}
    found: list[Text | End] = []
    for event in held:
        if event.choice not in unsure:
            found.append(_as_served(event))
        elif isinstance(event, Finished):
            end = _as_served(event)
            assert isinstance(end, End)
            found += [
                Text(event.choice, UNKNOWN[language]),
                replace(end, reason="stop", status="unknown"),
            ]
    return found
