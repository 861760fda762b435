"""How well a model predicts held-out text: cross-entropy per token, with its interval."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn import functional
from transformers import PreTrainedModel

from limbeck.evaluation.metrics import Z_95, Interval
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward


def ratio_of_sums(
    *, sums: Float[np.ndarray, " records"], counts: Int[np.ndarray, " records"]
) -> Interval:
    """Sum over sum, with a 95 % interval that keeps the tokens of one record together.

    The linearised variance of a ratio of two sample means (Cochran 1977, sec. 2.11).
    """
    ratio = sums.sum() / counts.sum()
    spread = np.sqrt(np.square(sums - ratio * counts).sum()) / counts.sum()
    if len(sums) > 1:
        spread *= np.sqrt(len(sums) / (len(sums) - 1))
    return Interval(float(ratio), float(ratio - Z_95 * spread), float(ratio + Z_95 * spread))


@torch.no_grad()
def measure_validation(model: PreTrainedModel, batches: Iterable[Batch]) -> dict[str, float]:
    """Cross-entropy in nats per token that carries a loss; empty without a batch."""
    forward = KeptForward(model.eval())
    sums, counts = [], []
    for batch in batches:
        batch = batch.to(model.device)
        logits = forward(batch).logits
        losses = functional.cross_entropy(logits.float(), batch.targets, reduction="none")
        ends = batch.kept.sum(dim=1).tolist()
        sums += [part.sum().item() for part in losses.split(ends)]
        counts += ends
    if not sum(counts):
        return {}
    loss = ratio_of_sums(sums=np.array(sums), counts=np.array(counts))
    return {
        "validation_loss": loss.value,
        "validation_loss_low": loss.low,
        "validation_loss_high": loss.high,
        "validation_records": len(counts),
        "validation_tokens": sum(counts),
    }
