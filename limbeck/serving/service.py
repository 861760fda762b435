"""From a conversation to an answer: safety rules, the choice of a tier, the model, its confidence.

Left out: HTTP. What stands here gives an answer piece by piece, and says which tier wrote it, why,
and how sure it was.
"""

import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Literal, final

from limbeck.contracts.answer_policy import Emergency
from limbeck.contracts.errors import NoTierError, QueueFullError, ServingError
from limbeck.contracts.tier_router import TierRouter
from limbeck.serving.cascade import (
    Attempt,
    Failure,
    GiveUp,
    Try,
    UpReason,
    failures,
    name_failure,
    next_step,
)
from limbeck.serving.config import AUTO, FACTS, TierConfig
from limbeck.serving.engine.messages import (
    AnswerStatus,
    ChosenToken,
    Finished,
    FinishReason,
    Generate,
    Piece,
)
from limbeck.serving.escalation import Escalation, Order
from limbeck.serving.facts import NO_FACTS, FactStore, find_fact
from limbeck.serving.language import Language
from limbeck.serving.safety import (
    CompiledRules,
    RuleMatch,
    check_answer,
    screen_question,
)
from limbeck.serving.tier import Meter, Tier, ask_tier

RouteReason = UpReason | Literal["fact", "emergency rule", "request rule"]
ModelRole = Literal["champion", "candidate", "shadow"]
"""A `candidate` takes a share of the requests; a `shadow` answers copies that nobody reads."""
UNKNOWN = {"zh": "不知道。", "en": "I do not know."}


@dataclass(frozen=True)
class Route:
    """Who answers, and why."""

    tier: str
    """'' where a rule answered; `facts` where a stored fact did."""
    reason: RouteReason
    model_key: str = ""
    """Of stored facts: the content hash of all of them."""
    role: ModelRole = "champion"
    failures: Mapping[str, Failure] = field(default_factory=dict)
    """Tiers that were asked before and gave no answer."""
    source: str = ""
    """Which stored fact answered; '' where none did."""

    @property
    def is_model(self) -> bool:
        """Whether a model answers: no rule, no stored fact."""
        return self.tier not in ("", FACTS)

    @property
    def label(self) -> ModelRole | Literal[""]:
        """The role of the model that answers; '' where none does."""
        return self.role if self.is_model else ""


@dataclass(frozen=True)
class AnswerText:
    """More of one answer."""

    choice: int
    text: str
    tokens: tuple[ChosenToken, ...] = ()


@dataclass(frozen=True)
class End:
    """The end of one answer."""

    choice: int
    reason: FinishReason
    status: AnswerStatus
    num_prompt_tokens: int
    num_tokens: int
    confidence_ratio: float | None
    """None where no model answered, or one that is not calibrated."""
    queue_seconds: float = 0.0
    """Without a row."""
    decode_seconds: float = 0.0
    """From its first token to its last, whenever the client got them."""
    num_cached_tokens: int = 0
    """Of the prompt, those that the model had read before, with another request."""


@dataclass(frozen=True)
class ServiceRequest:
    """A request, and what the client wants of the service itself."""

    model: str
    generate: Generate
    show_unsure: bool = False
    """Drafts are shown however unsure the model is."""
    language: Language = "zh"
    sticky: str = ""
    """Requests that are alike in it are answered by the same one of a champion and a candidate."""


ServedEvent = Route | AnswerText | End
"""A `Route` comes first, once."""


@final
class Service:
    """The tiers, from the largest to the smallest, and the rules before and after them.

    The rules of all tiers hold for every answer, whichever tier is named, and for stored facts.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        *,
        rules: Sequence[CompiledRules] = (),
        meters: Mapping[str, Meter] | None = None,
        router: TierRouter | None = None,
        facts: FactStore = NO_FACTS,
    ) -> None:
        self.tiers: Mapping[str, Tier] = {tier.config.name: tier for tier in tiers}
        self._escalation = Escalation(self.tiers, router=router)
        self._meters = {name: (meters or {}).get(name) or Meter() for name in self.tiers}
        self._rules = tuple(rules)
        self.facts = facts
        self._checks_answers = any(item.answers for item in rules)

    def answer(self, incoming: ServiceRequest) -> AsyncGenerator[ServedEvent]:
        """The events of an answer; closing the iterator ends the computing.

        Raises:
            NoTierError: no tier has answered.
            QueueFullError, EngineDownError: the tier that was named did not, or it broke off.
            RefusedError: the model cannot read the prompt.
        """
        if known := self._apply_rules(incoming) or self._state_fact(incoming):
            return _give(known)
        return self._answer_by_tier(incoming)

    def _apply_rules(self, incoming: ServiceRequest) -> tuple[ServedEvent, ...]:
        """The advice that the domain's rules give at once, or why no model may answer.

        Empty where neither applies.
        """
        question, language = incoming.generate.messages[-1].content, incoming.language
        screened = [screen_question(question, rules) for rules in self._rules]
        found: list[RuleMatch | Emergency] = [flag for item in screened for flag in item.red_flags]
        for tier in self.tiers.values():
            found += tier.policy.find_emergencies(question)
        if found:
            text = "\n".join(dict.fromkeys(_in_language(item, language) for item in found))
            return _ruled(text, reason="emergency rule", status="emergency")
        for item in screened:
            if item.refusal:
                text = _in_language(item.refusal, language)
                return _ruled(text, reason="request rule", status="refused")
        return ()

    def _state_fact(self, incoming: ServiceRequest) -> tuple[ServedEvent, ...]:
        """The events of a stored fact that is all that is asked; empty where a model has to answer.

        A fact has no tokens, and none of it may be cut off.
        """
        if incoming.model != AUTO or not _is_plain(incoming.generate):
            return ()
        found = find_fact(incoming.generate.messages[-1].content, self.facts)
        if found is None:
            return ()
        text, status = found.cited_answer, "answered"
        if withheld := self._find_withheld(text):
            text, status = _in_language(withheld, incoming.language), "withheld"
        if 0 < incoming.generate.max_new_tokens < len(text.encode()):
            return ()
        route = Route(FACTS, "fact", self.facts.key, source=found.source)
        return route, AnswerText(0, text), End(0, "stop", status, 0, 0, None)

    def _find_withheld(self, text: str) -> RuleMatch | None:
        """Why an answer may not be shown; None where it may."""
        verdicts = (check_answer(text, rules) for rules in self._rules)
        return next((item for verdict in verdicts for item in verdict.findings), None)

    async def _answer_by_tier(self, incoming: ServiceRequest) -> AsyncGenerator[ServedEvent]:
        question, is_named = incoming.generate.messages[-1].content, incoming.model != AUTO
        order = Order((incoming.model,), "named") if is_named else self._escalation.order(question)
        attempts: list[Attempt] = []
        errors: list[ServingError] = []
        answers: dict[str, list[Piece | Finished]] = {}
        while isinstance(step := next_step(order.names, attempts, begins=order.reason), Try):
            tier, streams = self.tiers[step.tier], self._streams(incoming, step)
            has_begun = False
            try:
                request = fit(incoming.generate, tier.config, in_pieces=streams)
                meter = self._meters[step.tier]
                async with aclosing(ask_tier(tier, request, meter=meter)) as events:
                    if streams:
                        # Before its first word another tier may still stand in for it.
                        first = await anext(events)
                        has_begun = True
                        yield _describe_route(tier, step.reason, attempts)
                        yield _as_served(first, tier)
                        async for event in events:
                            yield _as_served(event, tier)
                        return
                    answers[step.tier] = [event async for event in events]
            except ServingError as error:
                if is_named or has_begun:
                    raise
                errors.append(error)
                attempts.append(Attempt(step.tier, name_failure(error)))
            else:
                is_kept = self._escalation.keeps(
                    step.tier, question=question, held=answers[step.tier]
                )
                attempts.append(Attempt(step.tier, "sure" if is_kept else "unsure"))
        if isinstance(step, GiveUp):
            raise _join(errors)
        tier = self.tiers[step.tier]
        yield _describe_route(tier, step.reason, attempts)
        for event in self._check_answers(answers[step.tier], incoming=incoming, tier=tier):
            yield event

    def _streams(self, incoming: ServiceRequest, step: Try) -> bool:
        """Whether words are shown as they come: nothing may take them back afterwards."""
        if self._checks_answers:
            return False
        is_kept = step.is_last or self._escalation.always_keeps(step.tier)
        return incoming.show_unsure or (is_kept and not self.tiers[step.tier].can_be_unsure)

    def _check_answers(
        self, held: Sequence[Piece | Finished], *, incoming: ServiceRequest, tier: Tier
    ) -> Iterator[AnswerText | End]:
        """The events of whole answers, with something else in the place of those not to be shown.

        These are answers that the rules withhold, and those that the model is not sure of.
        """
        for choice in range(incoming.generate.num_choices):
            events = [event for event in held if event.choice == choice]
            end = next(event for event in events if isinstance(event, Finished))
            text = "".join(event.text for event in events if isinstance(event, Piece))
            if withheld := self._find_withheld(text):
                shown, status = _in_language(withheld, incoming.language), "withheld"
            elif not incoming.show_unsure and not tier.is_sure(end):
                shown, status = UNKNOWN[incoming.language], "unknown"
            else:
                yield from (_as_served(event, tier) for event in events)
                continue
            yield AnswerText(choice, shown)
            ended = _as_served(end, tier)
            assert isinstance(ended, End)
            yield replace(ended, reason="stop", status=status)


async def _give(known: Sequence[ServedEvent]) -> AsyncGenerator[ServedEvent]:
    for event in known:
        yield event


def fit(request: Generate, config: TierConfig, *, in_pieces: bool) -> Generate:
    """The request with the tier's own limits, in pieces where both want that."""
    wanted = min(request.max_new_tokens or config.max_new_tokens, config.max_new_tokens_limit)
    pieces = request.pieces if in_pieces else "none"
    if pieces == "none" and config.max_first_token_seconds != "unlimited":
        pieces = "first"
    return replace(request, max_new_tokens=wanted, pieces=pieces)


def _is_plain(request: Generate) -> bool:
    """Whether a request is one question, and wants nothing of its answer but the answer."""
    return (
        len(request.messages) == 1
        and request.num_choices == 1
        and request.num_top_log_probs < 0
        and not request.stop
        and not request.images
    )


def draw_seed() -> int:
    """A seed for a request that names none."""
    return secrets.randbits(63)


def _describe_route(tier: Tier, reason: RouteReason, attempts: Sequence[Attempt]) -> Route:
    return Route(tier.config.name, reason, tier.model_key, failures=failures(attempts))


def _as_served(event: Piece | Finished, tier: Tier) -> AnswerText | End:
    if isinstance(event, Piece):
        return AnswerText(event.choice, event.text, event.tokens)
    return End(
        event.choice,
        event.reason,
        event.status,
        event.num_prompt_tokens,
        event.num_tokens,
        tier.confidence(event),
        event.queue_seconds,
        event.decode_seconds,
        event.num_cached_tokens,
    )


def _join(errors: Sequence[ServingError]) -> ServingError:
    """Why nobody answered: what was refused by all is refused, everything else may pass."""
    passing = [error for error in errors if name_failure(error) != "refused"]
    if not passing:
        return errors[-1]
    full = [error for error in passing if isinstance(error, QueueFullError)]
    return NoTierError(
        "; ".join(map(str, passing)),
        is_full=len(full) == len(passing),
        retry_seconds=min((error.retry_seconds for error in full), default=1.0),
    )


def _in_language(item: RuleMatch | Emergency, language: Language) -> str:
    return item.zh if language == "zh" else item.en


def _ruled(text: str, *, reason: RouteReason, status: AnswerStatus) -> tuple[ServedEvent, ...]:
    """The events of an answer that no model writes."""
    return Route("", reason), AnswerText(0, text), End(0, "stop", status, 0, 0, None)
