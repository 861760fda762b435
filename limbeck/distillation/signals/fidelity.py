"""How far stored targets are from the teacher's distribution, as sums over positions.

The bias is that of the divergence which a student learns from: KL(teacher || student) read from
what is stored, less that over the whole vocabulary. The student is the teacher at twice the
temperature, one that has learnt the order but not the confidence.
"""

import math
from collections import Counter
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.distillation.targets import SparseOutput

MAX_POSITIONS = 64
"""So many positions of a forward pass are compared, evenly spaced."""


def measure_errors(output: SparseOutput, logits: Float[Tensor, "kept vocab"]) -> dict[str, float]:
    """Sums of errors of decoded targets against the teacher's logits; they add up."""
    stride = max(1, len(logits) // MAX_POSITIONS)
    logits = logits[::stride].double().cpu()
    output = output.rows(slice(None, None, stride)).to(logits.device)
    temperature = output.temperature
    full = (logits / temperature).log_softmax(dim=-1)
    student = (logits / (2 * temperature)).log_softmax(dim=-1)
    true = (full.exp() * (full - student)).sum(dim=-1)
    held = output.held_tokens()
    logs, weights, others = held.log_probs, held.weights, student.gather(1, output.ids)
    errors = (logs - full.gather(1, output.ids)).abs()[held.mask]
    if held.rest is not None:
        rest = student.scatter(1, output.ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
        others = torch.cat([others, rest.clamp(min=-80.0)], dim=1)
        logs = torch.cat([logs, held.rest[:, None]], dim=1)
        weights = torch.cat([weights, held.rest[:, None].exp()], dim=1)
    found = torch.where(weights > 0, weights * (logs - others), 0.0).sum(dim=-1)
    sums = {
        "positions": float(len(logits)),
        "tokens": float(held.mask.sum()),
        "error": float(errors.sum()),
        "kl": float(true.sum()),
        "bias": float((found - true).sum()),
        "bias_squares": float((found - true).square().sum()),
    }
    if held.rest is not None:
        num_others = max(1, full.shape[1] - output.ids.shape[1])
        even = (held.rest[:, None] - math.log(num_others)).expand_as(full)
        stored = even.scatter(1, output.ids, held.log_probs)
        sums["lost"] = float((full.exp() * (full - stored)).sum())
    return sums


def mean_errors(sums: Mapping[str, float]) -> dict[str, float]:
    """Means over positions and tokens; `kl_bias_error` is a standard error."""
    positions = max(1.0, sums["positions"])
    bias = sums["bias"] / positions
    variance = max(0.0, sums["bias_squares"] / positions - bias**2)
    found = {
        "mean_abs_error": sums["error"] / max(1.0, sums["tokens"]),
        "kl": sums["kl"] / positions,
        "kl_bias": bias,
        "kl_bias_error": math.sqrt(variance / positions),
    }
    if "lost" in sums:
        found["kl_full_stored"] = sums["lost"] / positions
    return found


def add_errors(sums: list[Mapping[str, float]]) -> dict[str, float]:
    """Sums of several batches or shards as those of all."""
    total: Counter[str] = Counter()
    for item in sums:
        total.update(item)
    return dict(total)
