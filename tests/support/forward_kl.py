"""Summed forward KL, as `soft_target` computes it, from plain arguments."""

from jaxtyping import Float, Int
from torch import Tensor

from limbeck.distillation.losses.divergences import forward_kl_terms
from limbeck.distillation.targets import FullLogits, TopK


def forward_kl(
    *,
    student_logits: Float[Tensor, "kept vocab"],
    teacher_logits: Float[Tensor, "kept vocab"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Sum over tokens of KL(teacher || student), both softened, times temperature squared."""
    terms = FullLogits(teacher_logits).divergence_terms(
        forward_kl_terms, student_logits=student_logits, temperature=temperature
    )
    return terms.sum() * temperature**2


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
    terms = TopK(top_logits, top_ids, tail, temperature).divergence_terms(
        forward_kl_terms, student_logits=student_logits, temperature=temperature
    )
    return terms.sum() * temperature**2
