"""Settings of learning from preferences and from rewards."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from typing_extensions import override

from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.fields import (
    InnerRatio,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PositiveRatio,
)
from limbeck.contracts.registry import REWARDS
from limbeck.objectives.config import Balance, BatchKind, ObjectiveConfig
from limbeck.reinforcement.rewards import name_domain_rewards

if TYPE_CHECKING:
    from limbeck.objectives.base import Objective, ObjectiveContext


class Dpo(ObjectiveConfig):
    """Prefer the better of two answers, measured against the model that training starts from."""

    batch_kind: ClassVar[BatchKind] = "pairs"
    trains_likelihood: ClassVar[bool] = False

    kind: Literal["dpo"]
    beta: PositiveFloat = 0.1
    """How strongly the start model holds: the larger, the less the answers move."""
    balance: Balance = Balance()
    """Read by mixtures of experts; a dense model has nothing to balance."""

    @property
    @override
    def sequences_per_record(self) -> int:
        return 2

    @override
    def build(self, context: "ObjectiveContext") -> "Objective":
        assert context.reference is not None
        from limbeck.reinforcement.dpo import DpoObjective

        return DpoObjective(self, reference=context.reference)


class Grpo(ObjectiveConfig):
    """Reinforce the sampled answers that verifiable rewards put above others to one question."""

    batch_kind: ClassVar[BatchKind] = "rollouts"
    trains_likelihood: ClassVar[bool] = False

    kind: Literal["grpo"]
    rewards: Annotated[Mapping[str, PositiveFloat], Field(min_length=1)] = {
        "facts": 1.0,
        "refusal": 1.0,
        "form": 0.1,
        "brevity": 0.1,
    }
    """Weights by name (`limbeck list rewards`)."""
    num_generations: Annotated[int, Field(ge=2)] = 8
    """Answers sampled to each question; one alone has nothing to be compared with."""
    temperature: PositiveFloat = 1.0
    """Of sampling, and of the probabilities in the loss."""
    top_p: PositiveRatio = 1.0
    """Sample from the likeliest tokens that hold so much probability."""
    max_completion_length: PositiveInt = 64
    """Longest answer, in tokens; longer ones count as not ended."""
    num_iterations: PositiveInt = 1
    """Optimizer steps on one set of answers; from the second on, the clip holds them back."""
    epsilon: InnerRatio = 0.2
    epsilon_high: PositiveFloat = 0.28
    """A ratio further than this from one gains nothing more (DAPO's asymmetric clip)."""
    beta: NonNegativeFloat = 0.04
    """Pull toward the model that training starts from."""
    scale_rewards: Literal["group", "none"] = "group"
    """Whether advantages are divided by their group's standard deviation."""
    loss_type: Literal["dapo", "grpo", "dr_grpo"] = "dapo"
    """What counts alike: tokens (DAPO), answers (GRPO), or neither (Dr. GRPO)."""
    balance: Balance = Balance()
    """Read by mixtures of experts; a dense model has nothing to balance."""

    @field_validator("rewards")
    @classmethod
    def _check_names(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        for name in value:
            if name not in REWARDS:
                raise ValueError(str(UnknownNameError(name, known=REWARDS, what="reward")))
        return value

    @property
    @override
    def domain_need(self) -> str:
        return name_domain_rewards(self.rewards)

    @property
    @override
    def sequences_per_record(self) -> int:
        return self.num_generations

    @override
    def build(self, context: "ObjectiveContext") -> "Objective":
        assert context.experience is not None
        from limbeck.reinforcement.grpo import GrpoObjective

        return GrpoObjective(self, experience=context.experience)
