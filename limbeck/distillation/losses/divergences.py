"""Divergences between a teacher's distribution and its student's, and their settings in a recipe.

Each is written as terms over outcomes, given both log-probabilities; summed over the outcomes they
are the divergence of one token. Outcomes are the whole vocabulary, or those tokens that a teacher's
output holds and one bucket for all others.
"""

import math

import torch

from limbeck.distillation.targets import LogProbs


def forward_kl_terms(student: LogProbs, teacher: LogProbs) -> LogProbs:
    """KL(teacher || student) = sum p log(p / q) (Hinton et al. 2015, arXiv:1503.02531)."""
    return teacher.exp() * (teacher - student)


def reverse_kl_terms(student: LogProbs, teacher: LogProbs) -> LogProbs:
    """KL(student || teacher) = sum q log(q / p) (MiniLLM, arXiv:2306.08543)."""
    return student.exp() * (student - teacher)


def log_mixture(student: LogProbs, teacher: LogProbs, *, teacher_weight: float) -> LogProbs:
    """Log of s p + (1 - s) q."""
    return torch.logaddexp(
        teacher + math.log(teacher_weight), student + math.log(1.0 - teacher_weight)
    )


def jensen_shannon_terms(student: LogProbs, teacher: LogProbs, *, beta: float) -> LogProbs:
    """b KL(p || m) + (1 - b) KL(q || m), m = b p + (1 - b) q (GKD, arXiv:2306.13649)."""
    mixture = log_mixture(student, teacher, teacher_weight=beta)
    of_teacher, of_student = (forward_kl_terms(mixture, side) for side in (teacher, student))
    return beta * of_teacher + (1 - beta) * of_student


def skew_forward_terms(student: LogProbs, teacher: LogProbs, *, skew: float) -> LogProbs:
    """KL(p || s p + (1 - s) q) (DistiLLM, arXiv:2402.03898)."""
    return forward_kl_terms(log_mixture(student, teacher, teacher_weight=skew), teacher)


def skew_reverse_terms(student: LogProbs, teacher: LogProbs, *, skew: float) -> LogProbs:
    """KL(q || (1 - s) p + s q) (DistiLLM, arXiv:2402.03898)."""
    return forward_kl_terms(log_mixture(student, teacher, teacher_weight=1.0 - skew), student)


def total_variation_terms(student: LogProbs, teacher: LogProbs) -> LogProbs:
    """Half the sum of |p - q| (f-distill, arXiv:2307.15190)."""
    return 0.5 * (teacher.exp() - student.exp()).abs()


def adaptive_terms(student: LogProbs, teacher: LogProbs, *, head_ratio: float) -> LogProbs:
    """Forward and reverse KL, mixed by token (AKL, arXiv:2404.02657).

    The weight of forward KL is the part of the gap |p - q| that lies on the teacher's likeliest
    outcomes, as many as hold `head_ratio` of its mass. No gradient flows through the weight.
    """
    with torch.no_grad():
        p = teacher.exp()
        gaps = (p - student.exp()).abs()
        ordered, places = p.sort(dim=-1, descending=True)
        # An outcome is in the head while those before it hold less than the head's mass.
        head = ordered.cumsum(dim=-1) - ordered < head_ratio
        on_head = (gaps.gather(1, places) * head).sum(dim=-1, keepdim=True)
        share = on_head / gaps.sum(dim=-1, keepdim=True).clamp(min=1e-30)
    return share * forward_kl_terms(student, teacher) + (1 - share) * reverse_kl_terms(
        student, teacher
    )
