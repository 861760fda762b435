"""How well a model predicts held-out text: cross-entropy per token, with its interval."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from limbeck.evaluation.metrics import ratio_of_sums
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward


@dataclass(frozen=True)
class RecordLosses:
    """Of each record: its id, its cross-entropy summed over tokens, and how many tokens it has."""

    record_ids: list[int]
    sums: list[float]
    counts: list[int]


@torch.no_grad()
def measure_records(model: PreTrainedModel, batches: Iterable[Batch]) -> RecordLosses:
    """Cross-entropy of each record in nats, batch by batch, one record a row."""
    forward = KeptForward(model.eval())
    found = RecordLosses([], [], [])
    for batch in batches:
        batch = batch.to(model.device)
        logits = forward(batch).logits
        losses = functional.cross_entropy(logits.float(), batch.targets, reduction="none")
        ends = batch.kept.sum(dim=1).tolist()
        found.record_ids.extend(batch.record_ids.tolist())
        found.sums.extend(part.sum().item() for part in losses.split(ends))
        found.counts.extend(ends)
    return found


def measure_validation(model: PreTrainedModel, batches: Iterable[Batch]) -> dict[str, float]:
    """Cross-entropy in nats per token that carries a loss; empty without a batch."""
    found = measure_records(model, batches)
    if not sum(found.counts):
        return {}
    loss = ratio_of_sums(sums=np.array(found.sums), counts=np.array(found.counts))
    return {
        "validation_loss": loss.value,
        "validation_loss_low": loss.low,
        "validation_loss_high": loss.high,
        "validation_records": len(found.counts),
        "validation_tokens": sum(found.counts),
    }
