"""How a request goes up the tiers, as pure functions: which tier is next, and whose answer counts.

Left out: engines, and what is shown of an answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from limbeck.contracts.errors import (
    BudgetError,
    CircuitOpenError,
    EngineDownError,
    QueueFullError,
    ServingError,
    SlowTierError,
)

Failure = Literal["down", "slow", "circuit open", "full", "over budget", "refused"]
"""Why a tier gave no answer; `refused`: it cannot read the request, whatever its state."""
Outcome = Literal["sure", "unsure"] | Failure
UpReason = Literal["named", "smallest tier", "escalated", "degraded"]
"""Why this tier answers; `degraded`: because one that was to answer did not."""
ANSWERED = ("sure", "unsure")


@dataclass(frozen=True)
class Attempt:
    """A tier that was asked, and what became of it."""

    tier: str
    outcome: Outcome

    @property
    def has_answered(self) -> bool:
        """Whether there is an answer, of whatever quality."""
        return self.outcome in ANSWERED


@dataclass(frozen=True)
class Try:
    """This tier is asked next."""

    tier: str
    reason: UpReason
    is_last: bool
    """Whether no tier comes after it."""


@dataclass(frozen=True)
class Show:
    """This tier has answered, and its answer counts."""

    tier: str
    reason: UpReason


@dataclass(frozen=True)
class GiveUp:
    """No tier has answered."""


Step = Try | Show | GiveUp


def next_step(
    order: Sequence[str], attempts: Sequence[Attempt], *, begins: UpReason = "smallest tier"
) -> Step:
    """What follows after these attempts, which are the first ones of the order.

    `begins` is why the first tier of the order is asked; `named` holds for all of them.

    A sure answer counts. After one that is not sure, and after a failure, the next tier is asked.
    At the end the answer of the largest tier that gave one counts, also where that one is not sure:
    a failure above never takes away what a smaller tier had to say.
    """
    latest = attempts[-1] if attempts else None
    if latest is not None and latest.outcome == "sure":
        return Show(latest.tier, _reason(attempts[:-1], begins=begins))
    if len(attempts) < len(order):
        is_last = len(attempts) == len(order) - 1
        return Try(order[len(attempts)], _reason(attempts, begins=begins), is_last)
    for place in reversed(range(len(attempts))):
        if attempts[place].has_answered:
            is_stand_in = place < len(attempts) - 1
            reason = _reason(attempts[:place], begins=begins)
            return Show(attempts[place].tier, "degraded" if is_stand_in else reason)
    return GiveUp()


def _reason(before: Sequence[Attempt], *, begins: UpReason) -> UpReason:
    """Why the tier after these attempts answers."""
    if begins == "named":
        return "named"
    if any(item.outcome not in (*ANSWERED, "refused") for item in before):
        return "degraded"
    return "escalated" if before else begins


def name_failure(error: ServingError) -> Failure:
    """What an error of a tier stands for."""
    if isinstance(error, BudgetError):
        return "over budget"
    if isinstance(error, QueueFullError):
        return "full"
    if isinstance(error, CircuitOpenError):
        return "circuit open"
    if isinstance(error, SlowTierError):
        return "slow"
    return "down" if isinstance(error, EngineDownError) else "refused"


def failures(attempts: Sequence[Attempt]) -> Mapping[str, Failure]:
    """The tiers that gave no answer, and why."""
    return {
        item.tier: item.outcome
        for item in attempts
        if item.outcome != "sure" and item.outcome != "unsure"
    }
