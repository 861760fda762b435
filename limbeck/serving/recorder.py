"""What becomes of each request, for the journal: what was asked, who answered, how it ended."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import final

from typing_extensions import override

from limbeck.contracts.answerer import Message
from limbeck.contracts.exchange import CANARY, SHADOW, Exchange
from limbeck.contracts.exchange import Status as ExchangeStatus
from limbeck.serving.engine.messages import AnswerStatus
from limbeck.serving.journal.writer import Journal
from limbeck.serving.service import AnswerText, End, Route, ServedEvent

STATUSES: dict[AnswerStatus, ExchangeStatus] = {
    "answered": "answered",
    "unknown": "declined",
    "refused": "declined",
    "withheld": "withheld",
    "emergency": "answered",
}


@final
@dataclass
class Recording(AbstractContextManager["Recording"]):
    """One request while it is answered; leaving it writes it down, however it ended.

    Of several answers to one request the first is kept.
    """

    journal: Journal | None
    id: str
    requested_model: str
    messages: tuple[Message, ...]
    started: float = field(default_factory=time.perf_counter)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    route: Route | None = None
    text: list[str] = field(default_factory=list)
    end: End | None = None
    first_seconds: float = 0.0
    exchange: Exchange | None = None
    """All of it, once it is over."""

    def observe(self, event: ServedEvent) -> None:
        """Takes an event of the answer."""
        if isinstance(event, Route):
            self.route = event
        elif event.choice:
            return
        elif isinstance(event, End):
            self.end = event
        else:
            assert isinstance(event, AnswerText)
            self.first_seconds = self.first_seconds or time.perf_counter() - self.started
            self.text.append(event.text)

    def whole_text(self) -> str:
        """The first answer, as far as it came."""
        return "".join(self.text)

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.exchange = self._describe(error)
        if self.journal is not None:
            self.journal.put(self.exchange)

    def _describe(self, error: BaseException | None) -> Exchange:
        end, route = self.end, self.route
        if end is not None:
            status: ExchangeStatus = STATUSES[end.status]
        else:
            status = "failed" if isinstance(error, Exception) else "cancelled"
        turns = [item for item in self.messages if item.role != "system"]
        return Exchange(
            id=self.id,
            time=self.time,
            requested_model=self.requested_model,
            tier=route.tier if route else "",
            route_reason=_name_reason(route) if route else "",
            model_key=route.model_key if route else "",
            question=turns[-1].content,
            answer=self.whole_text(),
            status=status,
            history=tuple(item.content for item in turns[:-1]),
            system="\n".join(item.content for item in self.messages if item.role == "system"),
            num_prompt_tokens=end.num_prompt_tokens if end else 0,
            num_completion_tokens=end.num_tokens if end else 0,
            confidence=end.confidence_ratio if end else None,
            queue_seconds=end.queue_seconds if end else 0.0,
            first_token_seconds=self.first_seconds,
            total_seconds=time.perf_counter() - self.started,
            is_machine_made=bool(route and route.is_model),
        )


def _name_reason(route: Route) -> str:
    """Why this model answered: of candidates the reader of a journal has to know that they are."""
    if route.role == "champion":
        return route.reason
    return SHADOW if route.role == "shadow" else f"{route.reason}; {CANARY}"
