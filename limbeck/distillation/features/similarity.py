"""How alike two models' inner states are: pure functions of states and of attention maps.

Sums over tokens, as every loss.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from limbeck.distillation.losses.divergences import forward_kl_terms


def scaled_mse(
    *, student: Float[Tensor, "kept hidden"], teacher: Float[Tensor, "kept hidden"]
) -> Float[Tensor, ""]:
    """Sum over tokens of the mean squared error against the teacher's state at unit RMS.

    Dividing by the teacher's RMS makes one weight fit every layer and every teacher.
    """
    teacher = teacher.float()
    rms = teacher.square().mean(dim=-1, keepdim=True).clamp(min=1e-12).sqrt()
    return (student.float() - teacher / rms).square().mean(dim=-1).sum()


def cosine_distance(
    *, student: Float[Tensor, "kept hidden"], teacher: Float[Tensor, "kept hidden"]
) -> Float[Tensor, ""]:
    """Sum over tokens of 1 - cosine."""
    cosine = torch.nn.functional.cosine_similarity(student.float(), teacher.float(), dim=-1)
    return (1 - cosine).sum()


def linear_cka(
    *, student: Float[Tensor, "kept hidden"], teacher: Float[Tensor, "kept teacher_hidden"]
) -> Float[Tensor, ""]:
    """|Y'X|^2 / (|X'X| |Y'Y|) of centred states, Frobenius norms: 1 up to rotation and scale.

    Linear centred kernel alignment (Kornblith et al. 2019, arXiv:1905.00414). Widths may differ; it
    is close to 1 whatever the states where tokens are fewer than numbers a token.
    """
    with torch.autocast(student.device.type, enabled=False):
        x, y = (states.float() - states.float().mean(dim=0) for states in (student, teacher))
        # At unit scale, so that squares of squares stay well inside float32.
        x, y = (states / states.norm().clamp(min=1e-12) for states in (x, y))
        ours, theirs = (x.T @ x).norm(), (y.T @ y).norm()
        return (y.T @ x).square().sum() / (ours * theirs).clamp(min=1e-12)


def cka_distance(
    *, student: Float[Tensor, "kept hidden"], teacher: Float[Tensor, "kept teacher_hidden"]
) -> Float[Tensor, ""]:
    """1 - CKA of the micro-batch's tokens, times their number; 0 for fewer than two."""
    if len(student) < 2:
        return student.sum() * 0.0
    return (1 - linear_cka(student=student, teacher=teacher)) * len(student)


def map_kl(
    *,
    student_logs: Float[Tensor, "kept heads tokens"],
    teacher_logs: Float[Tensor, "kept heads tokens"],
) -> Float[Tensor, ""]:
    """Sum over tokens of the mean over heads of KL(teacher's map || student's map)."""
    return forward_kl_terms(student_logs, teacher_logs).sum(dim=-1).mean(dim=1).sum()


def map_mse(
    *,
    student_logs: Float[Tensor, "kept heads tokens"],
    teacher_logs: Float[Tensor, "kept heads tokens"],
) -> Float[Tensor, ""]:
    """Sum over tokens of the mean over heads of the squared distance of the maps."""
    return (student_logs.exp() - teacher_logs.exp()).square().sum(dim=-1).mean(dim=1).sum()


def average_heads(
    logs: Float[Tensor, "kept heads tokens"], *, num_groups: int
) -> Float[Tensor, "kept groups tokens"]:
    """Log of the mean map of each group of consecutive heads."""
    grouped = logs.unflatten(1, (num_groups, -1))
    return grouped.logsumexp(dim=2) - math.log(grouped.shape[2])
