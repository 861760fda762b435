"""How far stored targets are from what the teacher said, as sums over positions.

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

from limbeck.models.targets import ImportanceSampled, TeacherDistribution, TopK

MOST_POSITIONS = 64
"""So many positions of a forward pass are compared, evenly spaced."""


def compare(
    said: TeacherDistribution, logits: Float[Tensor, "kept vocab"], *, temperature: float
) -> dict[str, float]:
    """Sums of errors of decoded targets against the teacher's logits; they add up."""
    assert isinstance(said, TopK | ImportanceSampled)
    stride = max(1, len(logits) // MOST_POSITIONS)
    logits = logits[::stride].double().cpu()
    said = type(said)(*(part[::stride].cpu() for part in said))
    full = (logits / temperature).log_softmax(dim=-1)
    student = (logits / (2 * temperature)).log_softmax(dim=-1)
    true = (full.exp() * (full - student)).sum(dim=-1)
    if isinstance(said, TopK):
        logs = torch.cat([said.logits.double() / temperature, said.tail.double()[:, None]], dim=1)
        logs = logs.log_softmax(dim=-1)
        others = student.scatter(1, said.ids, -torch.inf).logsumexp(dim=-1, keepdim=True)
        outcomes = torch.cat([student.gather(1, said.ids), others.clamp(min=-80.0)], dim=1)
        found = (logs.exp() * (logs - outcomes)).sum(dim=-1)
        logs, held = logs[:, :-1], torch.ones_like(said.ids, dtype=torch.bool)
    else:
        logs, held = said.logs.double(), said.weights > 0
        gaps = logs - student.gather(1, said.ids)
        found = torch.where(held, said.weights.double() * gaps, 0.0).sum(dim=-1)
    errors = (logs - full.gather(1, said.ids)).abs()[held]
    sums = {
        "positions": float(len(logits)),
        "tokens": float(held.sum()),
        "error": float(errors.sum()),
        "kl": float(true.sum()),
        "bias": float((found - true).sum()),
        "bias_squares": float((found - true).square().sum()),
    }
    if isinstance(said, TopK):
        sums["lost"] = float(_lost(said, full, temperature=temperature))
    return sums


def _lost(said: TopK, full: Float[Tensor, "kept vocab"], *, temperature: float) -> Tensor:
    """KL(full || stored), the stored tail spread evenly over all other tokens."""
    logs = torch.cat([said.logits.double() / temperature, said.tail.double()[:, None]], dim=1)
    logs = logs.log_softmax(dim=-1)
    num_others = max(1, full.shape[1] - said.ids.shape[1])
    stored = (
        (logs[:, -1:] - math.log(num_others)).expand_as(full).scatter(1, said.ids, logs[:, :-1])
    )
    return (full.exp() * (full - stored)).sum()


def conclude(sums: Mapping[str, float]) -> dict[str, float]:
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


def add(sums: list[Mapping[str, float]]) -> dict[str, float]:
    """Sums of several batches or shards as those of all."""
    total: Counter[str] = Counter()
    for item in sums:
        total.update(item)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return dict(total)
