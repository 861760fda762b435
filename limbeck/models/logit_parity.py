"""How far the logits of two models differ."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.contracts.parity import LogitDifference, Tolerance, compare_logits, rounding_tolerance
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward

KL_POSITIONS = 128
"""Whose probabilities are in memory at once."""


def random_tokens(
    *, vocab: int, num_prompts: int, num_tokens: int
) -> Int[Tensor, "prompts tokens"]:
    """Random token sequences, the same each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocab, (num_prompts, num_tokens), generator=generator)


@torch.no_grad()
def compute_logits(
    model: PreTrainedModel, *, input_ids: Int[Tensor, "prompts tokens"]
) -> Float[np.ndarray, "prompts tokens vocab"]:
    """The model's logits at every position, in float32."""
    return model(input_ids=input_ids, use_cache=False).logits.float().cpu().numpy()


def compare_models(
    original: PreTrainedModel, copied: PreTrainedModel, *, input_ids: Int[Tensor, "prompts tokens"]
) -> LogitDifference:
    """How far a copy of a model differs from it on some tokens."""
    expected, found = (compute_logits(item, input_ids=input_ids) for item in (original, copied))
    return compare_logits([(expected, found)])


@torch.no_grad()
def measure_kl(
    original: PreTrainedModel, changed: PreTrainedModel, *, batches: Iterable[Batch]
) -> float:
    """KL(original || changed) at the kept positions of batches, in the mean over these, in nats."""
    states = [(model, model.training) for model in (original, changed)]
    forwards = [KeptForward(model.eval()) for model, _ in states]
    total, count = 0.0, 0
    for batch in batches:
        parts = (
            forward(batch.to(original.device)).logits.split(KL_POSITIONS) for forward in forwards
        )
        for pair in zip(*parts, strict=True):
            expected, found = (item.float().log_softmax(dim=-1) for item in pair)
            total += float((expected.exp() * (expected - found)).sum(dim=-1).clamp_min(0).sum())
            count += len(expected)
    for model, training in states:
        model.train(training)
    return total / max(count, 1)


def tolerance_of(model: PreTrainedModel) -> Tolerance:
    """How far a model may differ from one that computes the same sums in another order."""
    widest = max(max(item.shape[1:], default=1) for item in model.parameters())
    return rounding_tolerance(width=widest, depth=model.config.get_text_config().num_hidden_layers)
