"""Learning from answers that the model samples itself: group-relative policy optimisation.

Each question is answered several times; what an answer's reward is above its group's mean is its
advantage (GRPO, Shao et al. 2024, eq. 3, arXiv:2402.03300).
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field, field_validator
from torch import Tensor, nn
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
from limbeck.models.batch import Batch
from limbeck.objectives.base import (
    BatchKind,
    Experience,
    ExperienceBuffer,
    Forward,
    Loss,
    Objective,
    ObjectiveConfig,
    ObjectiveContext,
)
from limbeck.objectives.load_balancing import Balance, Balancer
from limbeck.objectives.next_token import token_logs

STD_FLOOR = 1e-4
"""Added to a group's standard deviation, as TRL does."""


class PolicyLoss(NamedTuple):
    """Sums over tokens."""

    total: Float[Tensor, ""]
    kl: Float[Tensor, ""]
    """Weighted as the tokens are, without `beta`."""
    clipped: Float[Tensor, ""]
    """Weighted tokens whose ratio the clip holds back."""


def group_advantages(
    rewards: Float[Tensor, "groups samples"], *, scale: Literal["group", "none"]
) -> Float[Tensor, "groups samples"]:
    """Rewards minus their group's mean, divided by its standard deviation when scaled.

    The division favours questions that are almost always or almost never answered right; `none`
    leaves it out (Dr. GRPO, Liu et al. 2025, sec. 3.1, arXiv:2503.20783).
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if scale == "none":
        return centred
    return centred / (rewards.std(dim=1, keepdim=True) + STD_FLOOR)


def weigh_tokens(
    keep: Bool[Tensor, "batch tokens"],
    *,
    loss_type: Literal["dapo", "grpo", "dr_grpo"],
    max_new_tokens: int,
) -> tuple[Float[Tensor, " kept"], int]:
    """Each kept token's weight, and what the sum over a step is to be divided by.

    `dapo`: every token counts alike (DAPO, Yu et al. 2025, sec. 3.3, arXiv:2503.14476); `grpo`:
    every answer does, so tokens of long ones weigh less (GRPO); `dr_grpo`: divided by the most
    tokens that the answers could have had, so length changes no weight (Dr. GRPO).
    """
    lengths = keep.sum(dim=1)
    weights = torch.ones(int(lengths.sum()), device=keep.device)
    if loss_type == "dapo":
        return weights, len(weights)
    if loss_type == "dr_grpo":
        return weights, keep.shape[0] * max_new_tokens
    return weights / lengths[keep.nonzero()[:, 0]], keep.shape[0]


def grpo_loss(
    *,
    logs: Float[Tensor, " kept"],
    experience: Experience,
    weights: Float[Tensor, " kept"],
    epsilon: float,
    epsilon_high: float,
    beta: float,
) -> PolicyLoss:
    """Weighted sums over tokens of -min(r A, clip(r) A) + b (e^d - d - 1).

    r is the token's probability over that of the policy that sampled it, A its advantage, d the
    reference's log-probability minus the policy's: the last term estimates KL(policy || reference)
    without bias and is never negative (k3, Schulman 2020, http://joschu.net/blog/kl-approx.html).
    """
    ratio = (logs - experience.old_logs).exp()
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon_high)
    advantages = experience.advantages
    gain = torch.minimum(ratio * advantages, clipped * advantages)
    away = experience.reference_logs - logs
    kl = away.exp() - away - 1
    held = (clipped * advantages < ratio * advantages).float()
    return PolicyLoss(
        (weights * (beta * kl - gain)).sum(),
        (weights * kl).sum().detach(),
        (weights * held).sum(),
    )


class Grpo(ObjectiveConfig):
    """Reinforce the sampled answers that verifiable rewards put above others to one question."""

    batch_kind: ClassVar[BatchKind] = "rollouts"

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
    def sequences_per_record(self) -> int:
        return self.num_generations

    @override
    def build(self, context: ObjectiveContext) -> Objective:
        assert context.experience is not None
        return GrpoObjective(self, experience=context.experience)


class GrpoObjective(Objective):
    """Computes `Grpo`."""

    def __init__(self, config: Grpo, *, experience: ExperienceBuffer) -> None:
        super().__init__()
        self.config = config
        self.balancer = Balancer(config.balance)
        self.experience = experience

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of one micro-batch of sampled answers."""
        config = self.config
        output = forward(batch)
        weights, count = weigh_tokens(
            batch.kept, loss_type=config.loss_type, max_new_tokens=config.max_completion_length
        )
        loss = grpo_loss(
            logs=token_logs(output.logits, batch.targets, temperature=config.temperature),
            experience=self.experience(batch),
            weights=weights,
            epsilon=config.epsilon,
            epsilon_high=config.epsilon_high,
            beta=config.beta,
        )
        parts = {"kl": loss.kl.item(), "clipped": loss.clipped.item()}
        return self.balancer.add_to(
            Loss(loss.total, count, parts), routing=output.routing, batch=batch
        )

    def after_step(self, *, model: nn.Module) -> None:
        """Move the balance biases toward an even load."""
        self.balancer.update(model)
