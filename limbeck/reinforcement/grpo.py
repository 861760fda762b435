"""Learning from answers that the model samples itself: group-relative policy optimisation.

Each question is answered several times; what an answer's reward is above its group's mean is its
advantage (GRPO, Shao et al. 2024, eq. 3, arXiv:2402.03300).
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from limbeck.models.batch import Batch
from limbeck.objectives.base import Experience, ExperienceBuffer, Forward, Loss, Objective
from limbeck.objectives.load_balancing import Balancer
from limbeck.objectives.next_token import token_logs
from limbeck.reinforcement.config import Grpo

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
