"""Learning from preferences: a better and a worse answer to one question.

Direct preference optimisation (Rafailov et al. 2023, eq. 7, arXiv:2305.18290).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from limbeck.models.batch import Batch
from limbeck.objectives.base import Forward, Loss, Objective
from limbeck.objectives.load_balancing import Balancer
from limbeck.objectives.next_token import token_logs
from limbeck.reinforcement.config import Dpo


def dpo_loss(
    *,
    better_logs: Float[Tensor, " pairs"],
    worse_logs: Float[Tensor, " pairs"],
    reference_better_logs: Float[Tensor, " pairs"],
    reference_worse_logs: Float[Tensor, " pairs"],
    beta: float,
) -> Float[Tensor, ""]:
    """Sum over pairs of -log sigmoid(beta times the gain of the better answer over the worse).

    An answer's gain is its log-probability minus the reference's. Log 2 a pair while they agree.
    """
    better = better_logs - reference_better_logs
    worse = worse_logs - reference_worse_logs
    return -functional.logsigmoid(beta * (better - worse)).sum()


def sum_rows(
    logs: Float[Tensor, " kept"], *, keep: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, " batch"]:
    """The kept tokens' values, added up within each row."""
    rows = keep.nonzero()[:, 0]
    return torch.zeros(keep.shape[0], device=logs.device).index_add(0, rows, logs)


class DpoObjective(Objective):
    """Computes `Dpo` on batches whose first half are better answers and second half worse ones."""

    def __init__(self, config: Dpo, *, reference: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.balancer = Balancer(config.balance)
        # A tuple hides the reference from the parameters that training updates and saves.
        self.reference = (reference,)

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """The loss of the pairs of one micro-batch, with their margins."""
        keep, targets = batch.kept, batch.targets
        output = forward(batch)
        with torch.no_grad():
            reference = token_logs(self.reference[0](batch).logits, targets)
        better, worse = sum_rows(token_logs(output.logits, targets), keep=keep).chunk(2)
        reference_better, reference_worse = sum_rows(reference, keep=keep).chunk(2)
        count = len(better)
        dpo = dpo_loss(
            better_logs=better,
            worse_logs=worse,
            reference_better_logs=reference_better,
            reference_worse_logs=reference_worse,
            beta=self.config.beta,
        )
        gains = (better - reference_better - worse + reference_worse).detach()
        parts = {
            "dpo": dpo.item(),
            "margin": self.config.beta * gains.sum().item(),
            "preferred": float((gains > 0).sum()),
            "better_gain": (better - reference_better).sum().item(),
        }
        loss = Loss(dpo, count, parts)
        return self.balancer.add_to(loss, routing=output.routing, batch=batch)

    def after_step(self, *, model: nn.Module) -> None:
        """Move the balance biases toward an even load."""
        self.balancer.update(model)
