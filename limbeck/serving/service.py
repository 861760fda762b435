"""From a conversation to an answer: safety rules, the choice of a tier, the model, its confidence.

Left out: HTTP. What stands here gives an answer piece by piece, and says which tier wrote it, why,
and how sure it was.
"""

import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, final

from limbeck.contracts.answer_policy import AnswerPolicy, Emergency
from limbeck.contracts.errors import EngineDownError, NoTierError, QueueFullError
from limbeck.serving.config import AUTO, TierConfig
from limbeck.serving.engine.base import Engine
from limbeck.serving.engine.messages import ChosenToken, Finished, FinishReason, Generate, Piece
from limbeck.serving.language import Language
from limbeck.serving.safety import (
    CompiledRules,
    Finding,
    check_answer,
    find_red_flags,
    refuse_request,
)

Status = Literal["answered", "unknown", "refused", "withheld", "emergency"]
"""`refused`: a rule lets no model answer it; `withheld`: a rule held an answer back."""
Reason = Literal[
    "named", "smallest tier", "escalated", "degraded", "emergency rule", "request rule"
]
Role = Literal["champion", "candidate", "shadow"]
"""A `candidate` takes a share of the requests; a `shadow` answers copies that nobody reads."""
UNKNOWN = {"zh": "不知道。", "en": "I do not know."}


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
    role: Role = "champion"

    @property
    def label(self) -> Role | Literal[""]:
        """The role of the model that answers; '' where none does."""
        return self.role if self.tier else ""


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
    queue_seconds: float = 0.0
    """Without a row."""
    decode_seconds: float = 0.0
    """From its first token to its last, whenever the client got them."""


@dataclass(frozen=True)
class Ask:
    """A request, and what the client wants of the service itself."""

    model: str
    generate: Generate
    show_unsure: bool = False
    """Drafts are shown however unsure the model is."""
    language: Language = "zh"
    sticky: str = ""
    """Requests that are alike in it are answered by the same one of a champion and a candidate."""


ServedEvent = Route | Text | End
"""A `Route` comes first, once."""


@final
class Service:
    """The tiers, from the largest to the smallest, and the rules before and after them.

    The rules of all tiers hold for every answer, whichever tier is named.
    """

    def __init__(self, tiers: Sequence[Tier], *, rules: Sequence[CompiledRules] = ()) -> None:
        self.tiers: Mapping[str, Tier] = {tier.config.name: tier for tier in tiers}
        self._rules = tuple(rules)
        self._checks_answers = any(item.answers for item in rules)

    async def answer(self, asked: Ask) -> AsyncGenerator[ServedEvent]:
        """The events of an answer; closing the iterator ends the computing.

        Raises:
            NoTierError: no tier can take it.
            EngineDownError: the model's process died while it answered.
            RefusedError: the model cannot read the prompt.
        """
        if found := self._find_emergency(asked):
            ruled = _ruled(found, reason="emergency rule", status="emergency")
        elif found := self._find_refusal(asked):
            ruled = _ruled(found, reason="request rule", status="refused")
        else:
            ruled = ()
        for event in ruled:
            yield event
        if ruled:
            return
        async for event in self._answer_by_tier(asked):
            yield event

    def _find_emergency(self, asked: Ask) -> str:
        """The advice that the domain's rules give at once; empty where none applies."""
        question = asked.generate.messages[-1].content
        found = [
            *(flag for rules in self._rules for flag in find_red_flags(question, rules)),
            *(
                item
                for tier in self.tiers.values()
                for item in tier.policy.find_emergencies(question)
            ),
        ]
        return "\n".join(dict.fromkeys(_in_language(item, asked.language) for item in found))

    def _find_refusal(self, asked: Ask) -> str:
        """Why no model may answer; empty where one may."""
        question = asked.generate.messages[-1].content
        for rules in self._rules:
            if refused := refuse_request(question, rules):
                return _in_language(refused, asked.language)
        return ""

    async def _answer_by_tier(self, asked: Ask) -> AsyncGenerator[ServedEvent]:
        names = self._candidates(asked.model)
        reason: Reason = "named" if asked.model != AUTO else "smallest tier"
        failed: list[str] = []
        is_full = True
        for place, name in enumerate(names):
            tier, is_last = self.tiers[name], place == len(names) - 1
            streams = asked.show_unsure or (is_last and not tier.policy.familiarity)
            streams = streams and not self._checks_answers
            request = replace(
                fit(asked.generate, tier.config), in_pieces=streams and asked.generate.in_pieces
            )
            try:
                generation = tier.engine.submit(request)
            except (QueueFullError, EngineDownError) as error:
                is_full = is_full and isinstance(error, QueueFullError)
                failed.append(str(error))
                reason = "degraded"
                continue
            route = Route(name, reason, tier.model_key)
            try:
                if streams:
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
            for event in self._check_answers(held, asked=asked):
                yield event
            return
        raise NoTierError("; ".join(failed), is_full=is_full)

    def _check_answers(
        self, held: Sequence[Piece | Finished], *, asked: Ask
    ) -> Iterator[Text | End]:
        """The events of whole answers, with something else in the place of those not to be shown.

        These are answers that the rules withhold, and those that the model is not sure of.
        """
        for choice in range(asked.generate.num_choices):
            events = [event for event in held if event.choice == choice]
            end = next(event for event in events if isinstance(event, Finished))
            text = "".join(event.text for event in events if isinstance(event, Piece))
            verdicts = [check_answer(text, rules) for rules in self._rules]
            withheld = [finding for verdict in verdicts for finding in verdict.findings]
            if withheld:
                shown, status = _in_language(withheld[0], asked.language), "withheld"
            elif not asked.show_unsure and not _shown(end):
                shown, status = UNKNOWN[asked.language], "unknown"
            else:
                yield from map(_as_served, events)
                continue
            yield Text(choice, shown)
            ended = _as_served(end)
            assert isinstance(ended, End)
            yield replace(ended, reason="stop", status=status)

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
        event.queue_seconds,
        event.decode_seconds,
    )


def _is_sure(held: Sequence[Piece | Finished]) -> bool:
    return all(_shown(event) for event in held if isinstance(event, Finished))


def _shown(event: Finished) -> bool:
    return not event.is_repeating and (event.judgement is None or event.judgement.is_sure)


def _in_language(item: Finding | Emergency, language: Language) -> str:
    return item.zh if language == "zh" else item.en


def _ruled(text: str, *, reason: Reason, status: Status) -> tuple[ServedEvent, ...]:
    """The events of an answer that no model writes."""
    return Route("", reason), Text(0, text), End(0, "stop", status, 0, 0, None)
