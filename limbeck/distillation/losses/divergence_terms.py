"""Divergences between a teacher's distribution and its student's, as pure functions.

Each is written as terms over outcomes, given both log-probabilities; summed over the outcomes they
are the divergence of one token. Outcomes are the whole vocabulary, or the teacher's top tokens and
one bucket for all others.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.distillation.losses.top_k_log_probs import Number, top_logs
from limbeck.models.targets import ImportanceSampled, TopK

Logs = Float[Tensor, "kept outcomes"]
Terms = Callable[[Logs, Logs], Logs]
"""From the student's and the teacher's log-probabilities to what each outcome adds."""
NO_MASS = -60.0
"""Log-probability below which an outcome of both sides is left out."""


def forward_kl_terms(student: Logs, teacher: Logs) -> Logs:
    """KL(teacher || student) = sum p log(p / q) (Hinton et al. 2015, arXiv:1503.02531)."""
    return teacher.exp() * (teacher - student)


def reverse_kl_terms(student: Logs, teacher: Logs) -> Logs:
    """KL(student || teacher) = sum q log(q / p) (MiniLLM, arXiv:2306.08543)."""
    return student.exp() * (student - teacher)


def mix(student: Logs, teacher: Logs, *, teacher_share: float) -> Logs:
    """Log of s p + (1 - s) q."""
    return torch.logaddexp(
        teacher + math.log(teacher_share), student + math.log(1.0 - teacher_share)
    )


def jensen_shannon_terms(student: Logs, teacher: Logs, *, beta: float) -> Logs:
    """b KL(p || m) + (1 - b) KL(q || m), m = b p + (1 - b) q (GKD, arXiv:2306.13649)."""
    middle = mix(student, teacher, teacher_share=beta)
    return beta * forward_kl_terms(middle, teacher) + (1 - beta) * forward_kl_terms(middle, student)


def skew_forward_terms(student: Logs, teacher: Logs, *, skew: float) -> Logs:
    """KL(p || s p + (1 - s) q) (DistiLLM, arXiv:2402.03898)."""
    return forward_kl_terms(mix(student, teacher, teacher_share=skew), teacher)


def skew_reverse_terms(student: Logs, teacher: Logs, *, skew: float) -> Logs:
    """KL(q || (1 - s) p + s q) (DistiLLM, arXiv:2402.03898)."""
    return forward_kl_terms(mix(student, teacher, teacher_share=1.0 - skew), student)


def total_variation_terms(student: Logs, teacher: Logs) -> Logs:
    """Half the sum of |p - q| (f-distill, arXiv:2307.15190)."""
    return 0.5 * (teacher.exp() - student.exp()).abs()


def adaptive_terms(student: Logs, teacher: Logs, *, head_ratio: float) -> Logs:
    """Forward and reverse KL, mixed by token (AKL, arXiv:2404.02657).

    The share of the forward one is that of the gap |p - q| which lies on the teacher's likeliest
    outcomes, as many as hold `head_ratio` of its mass. No gradient flows through the share.
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


def whole_terms(
    terms: Terms,
    *,
    student_logits: Float[Tensor, "kept vocab"],
    teacher_logits: Float[Tensor, "kept vocab"],
    temperature: Number,
) -> Logs:
    """Terms over the vocabulary, both sides softened."""
    teacher = (teacher_logits.float() / temperature).log_softmax(dim=-1)
    student = (student_logits.float() / temperature).log_softmax(dim=-1)
    return terms(student, teacher)


def top_terms(
    terms: Terms, *, student_logits: Float[Tensor, "kept vocab"], said: TopK, temperature: Number
) -> Logs:
    """Terms over the teacher's top tokens and one bucket that holds all others.

    Their sum is a lower bound of the full divergence where that is an f-divergence, equal to it
    when the bucket is empty.
    """
    student = top_logs(student_logits, said.ids, temperature=temperature)
    mass = torch.cat([said.logits.float() / temperature, said.tail.float().unsqueeze(1)], dim=1)
    teacher = mass.log_softmax(dim=-1)
    held = (teacher > NO_MASS) | (student > NO_MASS)
    # What the teacher rules out costs a mode-seeking student much, yet not infinitely much.
    return torch.where(held, terms(student, teacher.clamp(min=-80.0)), 0.0)


def sampled_terms(
    terms: Terms,
    *,
    student_logits: Float[Tensor, "kept vocab"],
    said: ImportanceSampled,
    temperature: Number,
) -> Logs:
    """Terms over the drawn tokens, weighted: their sum is an unbiased estimate of the divergence.

    For weights under which sum w f(token) estimates sum p f(token); divergences whose terms read
    single outcomes only (all but the adaptive one).
    """
    student = (student_logits.float() / temperature).log_softmax(dim=-1).gather(1, said.ids)
    logs = said.logs.float()
    drawn = said.weights > 0
    # Padding has no weight; its logarithm may be anything.
    logs = torch.where(drawn, logs, 0.0)
    factors = torch.where(drawn, said.weights.float() * (-logs).exp(), 0.0)
    return factors * terms(student, logs)
