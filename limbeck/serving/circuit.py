"""A circuit breaker: a tier that fails again and again is left alone for a while (Nygard 2007,
"Release It!").

Closed, every request passes. After so many failures in a row it opens: requests are refused at
once, so that none waits for what will not come. After a while it is half open: one request tries,
and its end closes or opens it. Pure functions of the state and the time; `Circuit` holds the state.
"""

from dataclasses import dataclass, replace
from typing import Literal, final

from limbeck.contracts.config import Config
from limbeck.contracts.errors import CircuitOpenError
from limbeck.contracts.fields import NonNegativeInt, PositiveFloat

Position = Literal["closed", "half open", "open"]
Result = Literal["answered", "failed", "neither"]
"""`neither`: the client has gone, the queue was full: nothing that speaks for or against a tier."""


class CircuitConfig(Config):
    """When a tier that fails is left alone: a model that is slow, or breaks off, while its process
    or server says that it is there. What is known to be down is not asked anyway."""

    failures: NonNegativeInt = 5
    """In a row, until it is; those of requests that ran at the same time count once. 0: never."""
    seconds: PositiveFloat = 10.0
    """Until one request tries whether it answers again."""


@dataclass(frozen=True)
class CircuitState:
    """How a circuit stands."""

    position: Position = "closed"
    num_failures: int = 0
    since: float = 0.0
    """Of the latest failure; half open, of the request that tries."""


def seconds_to_wait(state: CircuitState, now: float, config: CircuitConfig) -> float:
    """Until a request may pass; 0: now. One that tries holds up the others for so long only."""
    if state.position == "closed":
        return 0.0
    return max(0.0, state.since + config.seconds - now)


def enter(state: CircuitState, now: float) -> CircuitState:
    """What becomes of it when a request passes."""
    return (
        state if state.position == "closed" else CircuitState("half open", state.num_failures, now)
    )


def leave(
    state: CircuitState, result: Result, *, began: float, now: float, config: CircuitConfig
) -> CircuitState:
    """What becomes of it when a request has ended that passed at a time."""
    tried = state.position == "half open" and began >= state.since
    if result == "answered":
        return CircuitState()
    if result == "neither":
        # The next one tries at once.
        return replace(state, position="open", since=now - config.seconds) if tried else state
    if not config.failures or (began < state.since and not tried):
        return state
    num_failures = state.num_failures + 1
    opens = tried or num_failures >= config.failures
    return CircuitState("open" if opens else "closed", num_failures, now)


@final
class Circuit:
    """The circuit of one model in service."""

    def __init__(self) -> None:
        self.state = CircuitState()

    def enter(self, name: str, now: float, config: CircuitConfig) -> None:
        """Lets a request pass.

        Raises:
            CircuitOpenError: the tier has failed too often.
        """
        if seconds := seconds_to_wait(self.state, now, config):
            raise CircuitOpenError(
                f"{name} has failed {self.state.num_failures} times in a row; it is tried again in "
                f"{seconds:.1f} s",
                retry_seconds=seconds,
            )
        self.state = enter(self.state, now)

    def leave(self, result: Result, *, began: float, now: float, config: CircuitConfig) -> None:
        """Takes how a request has ended."""
        self.state = leave(self.state, result, began=began, now=now, config=config)
