"""A number of steps by a share of a token budget, so that phases keep their proportions.

The reference trains its phases on 400, 50 and 10 billion tokens; 40 : 5 : 1 is the default split of
any budget. Left out: what a step reads, which its source of batches counts.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, model_validator

from limbeck.contracts.config import Config
from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.fields import PositiveFloat, PositiveInt

SHARES = {"pretrain": 40.0, "finetune": 5.0, "reinforce": 1.0}
NUMBER = TypeAdapter(PositiveInt)


class TokenShare(Config):
    """As many steps as read one phase's share of a budget."""

    tokens: PositiveInt
    """The budget of all phases together, in tokens, padding not counted."""
    phase: str
    """Whose share this is: a key of `shares`."""
    shares: Annotated[Mapping[str, PositiveFloat], Field(min_length=1)] = SHARES
    """Parts of the budget by phase; only their proportions matter."""

    @model_validator(mode="after")
    def _check_phase(self) -> "TokenShare":
        if self.phase not in self.shares:
            raise ValueError(str(UnknownNameError(self.phase, known=self.shares, what="phase")))
        return self

    @property
    def ratio(self) -> float:
        """The phase's part of the budget, 0 to 1."""
        return self.shares[self.phase] / sum(self.shares.values())

    @property
    def phase_tokens(self) -> float:
        """Tokens of the phase."""
        return self.tokens * self.ratio


def _read_steps(value: object) -> int | TokenShare:
    if isinstance(value, Mapping):
        return TokenShare.model_validate(value)
    return value if isinstance(value, TokenShare) else NUMBER.validate_python(value)


StepBudget = Annotated[Any, BeforeValidator(_read_steps)]
"""The type of a field that holds a number of steps or a share of a budget."""


def count_steps(steps: int | TokenShare, *, tokens_per_step: float) -> int:
    """The number itself, or the nearest number of steps that reads the share; at least one."""
    if isinstance(steps, int):
        return steps
    return max(1, round(steps.phase_tokens / tokens_per_step))


def report_tokens(steps: int | TokenShare, *, seen_tokens: int) -> dict[str, float]:
    """Tokens that training has read, beside the plan where there was one."""
    found = {"tokens_seen": float(seen_tokens)}
    if isinstance(steps, TokenShare):
        found |= {
            "tokens_planned": steps.phase_tokens,
            "budget_planned_ratio": steps.ratio,
            "budget_seen_ratio": seen_tokens / steps.tokens,
        }
    return found
