"""Log-probabilities of some tokens and of all others together, in few passes over a vocabulary."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

Scalar = float | Float[Tensor, ""]
"""A tensor where a compiled program must not hang on the value."""
LOWEST = -80.0
"""Log-mass below which all others count as this much, without a gradient."""


def top_k_log_probs(
    logits: Float[Tensor, "kept vocab"], ids: Int[Tensor, "kept top"], *, temperature: Scalar
) -> Float[Tensor, "kept outcomes"]:
    """Log-probability of each token named (none twice), then of all others, in float32.

    One exponential of each logit serves both passes: forward it is summed with and without the
    tokens named, backward it is the gradient up to one factor a position. `log_softmax`, a copy
    without those tokens and its `logsumexp` would take three, and keep three such arrays.
    """
    return _TopKLogProbs.apply(logits, ids, temperature)


class _TopKLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
        peak = logits.amax(dim=-1, keepdim=True).float()
        mass = torch.add(peak / -temperature, logits.float(), alpha=1.0 / temperature)
        top = mass.gather(1, ids)
        mass.exp_().scatter_(1, ids, 0.0)
        rest = mass.sum(dim=-1, keepdim=True)
        total = rest + top.exp().sum(dim=-1, keepdim=True)
        others = rest.log() - total.log()
        ctx.save_for_backward(mass, ids, top - total.log(), total, rest, others > LOWEST)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        return torch.cat([top - total.log(), others.clamp(min=LOWEST)], dim=1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = grad_outputs
        mass, ids, logs, total, rest, held = ctx.saved_tensors
        on_top, on_others = gradient[:, :-1], torch.where(held, gradient[:, -1:], 0.0)
        both = on_top.sum(dim=-1, keepdim=True) + on_others
        share = torch.where(held, on_others / rest, 0.0)
        found = mass * ((share - both / total) / ctx.temperature)
        found.scatter_(1, ids, (on_top - both * logs.exp()) / ctx.temperature)
        return found.to(ctx.dtype), None, None
