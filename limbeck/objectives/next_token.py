"""Next-token likelihood: cross-entropy with the written answer."""

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from limbeck.models.batch import Batch
from limbeck.objectives.base import Forward, Loss, Objective
from limbeck.objectives.config import NextToken
from limbeck.objectives.load_balancing import Balancer


def cross_entropy(
    *, logits: Float[Tensor, "kept vocab"], targets: Int[Tensor, " kept"]
) -> Float[Tensor, ""]:
    """Sum over tokens of -log p(target), in float32."""
    return functional.cross_entropy(logits.float(), targets, reduction="sum")


def smoothed_cross_entropy(
    *,
    logits: Float[Tensor, "kept vocab"],
    targets: Int[Tensor, " kept"],
    label_smoothing: float,
) -> Float[Tensor, ""]:
    """Sum over tokens of the cross-entropy with (1 - e) of the target and e of a uniform one.

    Szegedy et al. 2016, sec. 7 (arXiv:1512.00567), as in torch.
    """
    return functional.cross_entropy(
        logits.float(), targets, reduction="sum", label_smoothing=label_smoothing
    )


def cut_padding(logits: Float[Tensor, "kept rows"], *, vocab: int) -> Float[Tensor, "kept vocab"]:
    """Logits without those of padding rows.

    Where nothing is cut nothing is sliced: a slice costs a pass over all logits on the way back.
    """
    return logits if logits.shape[1] <= vocab else logits[:, :vocab]


def token_logs(
    logits: Float[Tensor, "kept vocab"], targets: Int[Tensor, " kept"], *, temperature: float = 1.0
) -> Float[Tensor, " kept"]:
    """Log-probability of each target at a temperature, in float32."""
    scaled = logits.float() / temperature
    return scaled.gather(1, targets.unsqueeze(1)).squeeze(1) - scaled.logsumexp(dim=-1)


class NextTokenObjective(Objective):
    """Computes `NextToken`."""

    def __init__(self, config: NextToken) -> None:
        super().__init__()
        self.config = config
        self.balancer = Balancer(config.balance)

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """Cross-entropy plus the routing losses, both per kept token."""
        targets = batch.targets
        output = forward(batch)
        limit = self.config.vocab or output.logits.shape[-1]
        logits = cut_padding(output.logits, vocab=limit)
        if self.config.label_smoothing:
            total = smoothed_cross_entropy(
                logits=logits, targets=targets, label_smoothing=self.config.label_smoothing
            )
            ce = cross_entropy(logits=logits.detach(), targets=targets)
        else:
            total = ce = cross_entropy(logits=logits, targets=targets)
        loss = Loss(total, targets.numel(), {"ce": ce.item()})
        return self.balancer.add_to(loss, routing=output.routing, batch=batch)

    def after_step(self, *, model: nn.Module) -> None:
        """Move the balance biases toward an even load."""
        self.balancer.update(model)
