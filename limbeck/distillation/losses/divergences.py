"""The divergences that a recipe can name, each with its settings."""

from abc import abstractmethod
from functools import partial
from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from limbeck.contracts.config import Config
from limbeck.contracts.errors import TrainingError
from limbeck.distillation.losses.divergence_terms import (
    Terms,
    adaptive_terms,
    forward_kl_terms,
    jensen_shannon_terms,
    reverse_kl_terms,
    sampled_terms,
    skew_forward_terms,
    skew_reverse_terms,
    top_terms,
    total_variation_terms,
    whole_terms,
)
from limbeck.distillation.losses.top_k_log_probs import Number
from limbeck.models.targets import (
    FullLogits,
    HiddenAndHead,
    ImportanceSampled,
    TeacherDistribution,
    TopK,
)

Between = Annotated[float, Field(gt=0, lt=1)]


class Divergence(Config):
    """Base of every divergence."""

    power: ClassVar[int] = 2
    """Gradients shrink with this power of the temperature, and are multiplied by it."""
    by_outcome: ClassVar[bool] = True
    """Each term reads its own outcome alone, so that drawn outcomes estimate their sum."""

    @abstractmethod
    def terms(self) -> Terms:
        """From both log-probabilities to terms over outcomes."""

    def total(
        self,
        student_logits: Float[Tensor, "kept vocab"],
        said: TeacherDistribution,
        *,
        temperature: Number,
    ) -> Float[Tensor, ""]:
        """Sum over tokens at a temperature, scaled so that gradients stay comparable.

        Raises:
            TrainingError: drawn tokens cannot estimate this divergence.
        """
        terms = self.terms()
        if isinstance(said, HiddenAndHead):
            said = said.whole()
        if isinstance(said, FullLogits):
            found = whole_terms(
                terms,
                student_logits=student_logits,
                teacher_logits=said.logits[:, : student_logits.shape[1]],
                temperature=temperature,
            )
        elif isinstance(said, TopK):
            found = top_terms(
                terms, student_logits=student_logits, said=said, temperature=temperature
            )
        else:
            self.check(said)
            found = sampled_terms(
                terms, student_logits=student_logits, said=said, temperature=temperature
            )
        return found.sum() * temperature**self.power

    def check(self, said: TeacherDistribution) -> None:
        """Refuse targets that do not hold what this divergence reads.

        Raises:
            TrainingError: drawn tokens cannot estimate this divergence.
        """
        if isinstance(said, ImportanceSampled) and not self.by_outcome:
            raise TrainingError(
                "divergence 'adaptive' orders all of the teacher's tokens, and these signals hold "
                "drawn ones; record top tokens, ask a live teacher, or use another divergence"
            )


class ForwardKl(Divergence):
    """KL(teacher || student): the student covers all that the teacher allows."""

    kind: Literal["forward_kl"]

    def terms(self) -> Terms:  # noqa: D102
        return forward_kl_terms


class ReverseKl(Divergence):
    """KL(student || teacher): the student keeps to what the teacher finds likely."""

    kind: Literal["reverse_kl"]

    def terms(self) -> Terms:  # noqa: D102
        return reverse_kl_terms


class JensenShannon(Divergence):
    """Both sides against their mix: bounded, between forward and reverse KL."""

    kind: Literal["jensen_shannon"]
    beta: Between = 0.5
    """The teacher's share of the mix."""

    def terms(self) -> Terms:  # noqa: D102
        return partial(jensen_shannon_terms, beta=self.beta)


class SkewForward(Divergence):
    """KL from the teacher to a mix of both: forward KL with bounded gradients."""

    kind: Literal["skew_forward"]
    skew: Between = 0.1
    """The teacher's share of the mix."""

    def terms(self) -> Terms:  # noqa: D102
        return partial(skew_forward_terms, skew=self.skew)


class SkewReverse(Divergence):
    """KL from the student to a mix of both: reverse KL with bounded gradients."""

    kind: Literal["skew_reverse"]
    skew: Between = 0.1
    """The student's share of the mix."""

    def terms(self) -> Terms:  # noqa: D102
        return partial(skew_reverse_terms, skew=self.skew)


class TotalVariation(Divergence):
    """Half of the absolute difference: bounded by one, robust to a teacher's outliers."""

    # Absolute differences shrink with T, not with its square.
    power: ClassVar[int] = 1
    kind: Literal["total_variation"]

    def terms(self) -> Terms:  # noqa: D102
        return total_variation_terms


class Adaptive(Divergence):
    """Forward and reverse KL, mixed for each token by where the student is off."""

    by_outcome: ClassVar[bool] = False
    kind: Literal["adaptive"]
    head_ratio: Between = 0.5
    """Mass of the teacher's likeliest tokens that count as its head."""

    def terms(self) -> Terms:  # noqa: D102
        return partial(adaptive_terms, head_ratio=self.head_ratio)
