"""Divergences between a teacher's distribution and its student's, as pure functions.

Left out: mixing them with hard labels and hidden states (`soft_target.py`).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def forward_kl(
    *,
    student_logits: Float[Tensor, "kept vocab"],
    teacher_logits: Float[Tensor, "kept vocab"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Sum over tokens of KL(teacher || student), both softened, times temperature squared."""
    teacher = (teacher_logits.float() / temperature).log_softmax(dim=-1)
    student = (student_logits.float() / temperature).log_softmax(dim=-1)
    return (teacher.exp() * (teacher - student)).sum() * temperature**2


def forward_kl_with_tail(
    *,
    student_logits: Float[Tensor, "kept vocab"],
    top_logits: Float[Tensor, "kept top"],
    top_ids: Int[Tensor, "kept top"],
    tail: Float[Tensor, " kept"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Forward KL over the teacher's top tokens and one bucket that holds all others.

    A lower bound of the full divergence, equal to it when the bucket is empty.
    """
    scaled = (student_logits.float() / temperature).log_softmax(dim=-1)
    student_top = scaled.gather(1, top_ids)
    others = scaled.scatter(1, top_ids, -torch.inf)
    # All tokens may be top tokens; logsumexp of nothing is -inf and has no gradient.
    student_tail = others.logsumexp(dim=-1).clamp(min=-80.0)
    mass = torch.cat([top_logits.float() / temperature, tail.float().unsqueeze(1)], dim=1)
    teacher = mass.log_softmax(dim=-1)
    student = torch.cat([student_top, student_tail.unsqueeze(1)], dim=1)
    held = teacher > -60.0
    terms = torch.where(held, teacher.exp() * (teacher - student), 0.0)
    return terms.sum() * temperature**2
