"""How well a model predicts held-out text: cross-entropy per token, with its interval."""

from collections.abc import Iterable

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from limbeck.evaluation.metrics import ratio_of_sums
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward


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
