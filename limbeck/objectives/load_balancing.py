"""Keeping experts evenly loaded: a bias without gradient, a small balance loss, a z-loss.

Every quantity is per layer: pooled over layers, two collapsed layers can look balanced.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from limbeck.models.batch import Batch
from limbeck.models.forward import count_picks
from limbeck.models.moe.layers import Gate, Routing
from limbeck.objectives.base import Loss
from limbeck.objectives.config import Balance


def balance_loss(
    *,
    probabilities: Float[Tensor, "tokens experts"],
    picked: Int[Tensor, "tokens picks"],
    tokens: Bool[Tensor, " tokens"],
) -> Float[Tensor, ""]:
    """E times the sum of load share and mean probability: 1 when even, at most E.

    Shares are divided by the picks per token, so the value does not grow with K
    (Fedus et al. 2022, eq. 4, arXiv:2101.03961).
    """
    num_experts = probabilities.shape[1]
    counts = torch.bincount(picked[tokens].reshape(-1), minlength=num_experts)
    shares = counts / counts.sum().clamp(min=1)
    return num_experts * (shares * probabilities[tokens].mean(dim=0)).sum()


def z_loss(
    *, logits: Float[Tensor, "tokens experts"], tokens: Bool[Tensor, " tokens"]
) -> Float[Tensor, ""]:
    """Mean square of the log-partition of the gate's logits (Zoph et al. 2022, eq. 5)."""
    return logits[tokens].logsumexp(dim=-1).square().mean()


class Balancer(nn.Module):
    """Adds up routing losses, counts picks while training, and moves the gates' biases."""

    def __init__(self, config: Balance) -> None:
        super().__init__()
        self.config = config
        self.picks: list[Tensor] = []

    def forward(self, routing: Sequence[Routing], batch: Batch) -> Float[Tensor, ""]:
        """Mean over layers of the weighted balance loss and z-loss."""
        tokens = batch.tokens.reshape(-1)
        total = torch.zeros((), device=tokens.device)
        for layer in routing:
            balance = balance_loss(
                probabilities=layer.probabilities, picked=layer.picked, tokens=tokens
            )
            z = z_loss(logits=layer.logits, tokens=tokens)
            total = total + self.config.loss_weight * balance + self.config.z_weight * z
        if self.training and torch.is_grad_enabled():
            # A list, for micro-batches may come from several threads at once.
            self.picks.append(count_picks(routing, tokens=tokens))
        return total / len(routing)

    def add_to(self, loss: Loss, *, routing: Sequence[Routing], batch: Batch) -> Loss:
        """The loss with that of the routing for everything it counts; a dense model's unchanged."""
        if not routing:
            return loss
        added = self(routing, batch) * loss.count
        return Loss(loss.sum + added, loss.count, {**loss.parts, "routing": added.item()})

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Raise the bias of underused experts and lower that of overused ones, then recount."""
        gates = [module for module in model.modules() if isinstance(module, Gate)]
        if not gates:
            return
        picks = torch.zeros(len(gates), len(gates[0].balance_bias), device=gates[0].weight.device)
        for counted in self.picks:
            picks += counted
        self.picks.clear()
        # Every process has to come here, even one that has counted nothing.
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(picks)
        for gate, load in zip(gates, picks, strict=True):
            gate.balance_bias += self.config.bias_rate * torch.sign(load.mean() - load)
