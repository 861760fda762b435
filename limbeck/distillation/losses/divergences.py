"""Divergences between a teacher's distribution and its student's, and their settings in a recipe.

Each is written as terms over outcomes, given both log-probabilities; summed over the outcomes they
are the divergence of one token. Outcomes are the whole vocabulary, or those tokens that a teacher's
output holds and one bucket for all others.
"""

import math
from abc import abstractmethod
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from limbeck.contracts.config import Config, resolve
from limbeck.contracts.errors import TrainingError
from limbeck.contracts.registry import DIVERGENCES
from limbeck.distillation.losses.top_k_log_probs import Number
from limbeck.distillation.targets import LogProbs, TeacherOutput, Terms


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


Between = Annotated[float, Field(gt=0, lt=1)]


class Divergence(Config):
    """Base of every divergence."""

    power: ClassVar[int] = 2
    """Gradients shrink with this power of the temperature, and are multiplied by it."""
    separable: ClassVar[bool] = True
    """Each term reads its own outcome alone, so that sampled outcomes estimate their sum."""

    in_default_search: ClassVar[bool] = True
    """Whether `limbeck tune` tries it where the recipe names no divergences."""

    @abstractmethod
    def terms(self) -> Terms:
        """From both log-probabilities to terms over outcomes."""

    def total(
        self,
        student_logits: Float[Tensor, "kept vocab"],
        output: TeacherOutput,
        *,
        temperature: Number,
    ) -> Float[Tensor, ""]:
        """Sum over tokens at a temperature, scaled so that gradients stay comparable.

        Raises:
            TrainingError: sampled tokens cannot estimate this divergence.
        """
        self.check(output)
        found = output.divergence_terms(
            self.terms(), student_logits=student_logits, temperature=temperature
        )
        return found.sum() * temperature**self.power

    def check(self, output: TeacherOutput) -> None:
        """Refuse outputs that do not hold what this divergence reads.

        Raises:
            TrainingError: sampled tokens cannot estimate this divergence.
        """
        if output.is_sample and not self.separable:
            raise TrainingError(
                "divergence 'adaptive' orders all of the teacher's tokens, and these signals hold "
                "drawn ones; record top tokens, use a live teacher, or use another divergence"
            )


class ForwardKl(Divergence):
    """KL(teacher || student): mass-covering."""

    kind: Literal["forward_kl"]

    @override
    def terms(self) -> Terms:
        return forward_kl_terms


class ReverseKl(Divergence):
    """KL(student || teacher): mode-seeking."""

    kind: Literal["reverse_kl"]

    @override
    def terms(self) -> Terms:
        return reverse_kl_terms


class JensenShannon(Divergence):
    """Both sides against their mixture: bounded, between forward and reverse KL."""

    kind: Literal["jensen_shannon"]
    beta: Between = 0.5
    """The teacher's weight in the mixture."""

    @override
    def terms(self) -> Terms:
        return partial(jensen_shannon_terms, beta=self.beta)


class SkewForward(Divergence):
    """KL from the teacher to a mixture of both: forward KL with bounded gradients."""

    kind: Literal["skew_forward"]
    skew: Between = 0.1
    """The teacher's weight in the mixture."""

    @override
    def terms(self) -> Terms:
        return partial(skew_forward_terms, skew=self.skew)


class SkewReverse(Divergence):
    """KL from the student to a mixture of both: reverse KL with bounded gradients."""

    kind: Literal["skew_reverse"]
    skew: Between = 0.1
    """The student's weight in the mixture."""

    @override
    def terms(self) -> Terms:
        return partial(skew_reverse_terms, skew=self.skew)


class TotalVariation(Divergence):
    """Half of the absolute difference: bounded by one, robust to a teacher's outliers."""

    # Absolute differences shrink with T, not with its square.
    power: ClassVar[int] = 1
    in_default_search: ClassVar[bool] = False
    kind: Literal["total_variation"]

    @override
    def terms(self) -> Terms:
        return total_variation_terms


class Adaptive(Divergence):
    """Forward and reverse KL, weighted for each token by where the student differs."""

    separable: ClassVar[bool] = False
    in_default_search: ClassVar[bool] = False
    kind: Literal["adaptive"]
    head_ratio: Between = 0.5
    """Mass of the teacher's likeliest tokens that count as its head."""

    @override
    def terms(self) -> Terms:
        return partial(adaptive_terms, head_ratio=self.head_ratio)


def searched_divergences() -> tuple[str, ...]:
    """The names of the table that a search tries by default."""
    found: dict[str, type[Divergence]] = {
        name: resolve(DIVERGENCES, name, what="divergence") for name in DIVERGENCES
    }
    return tuple(name for name, config in found.items() if config.in_default_search)
