"""Settings of learning from a teacher's distribution."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from typing_extensions import override

from limbeck.contracts.config import Choice, Config, resolve
from limbeck.contracts.errors import TrainingError
from limbeck.contracts.registry import DIVERGENCES
from limbeck.distillation.features.config import Matching
from limbeck.distillation.losses.value_schedules import Schedule, bounds, value_at
from limbeck.models.config import LARGE_VOCAB, LogitsForm
from limbeck.objectives.config import MatchedFeature, Needs, ObjectiveConfig, TeacherTerm

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from limbeck.distillation.losses.top_k_log_probs import Scalar
    from limbeck.distillation.targets import TeacherOutput, Terms
    from limbeck.models.batch import Batch
    from limbeck.objectives.base import Objective, ObjectiveContext

CHUNK_BYTES = 160 * 2**20
"""Of a buffer of logits, at most; student and live teacher have one each."""
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
    def terms(self) -> "Terms":
        """From both log-probabilities to terms over outcomes."""

    def total(
        self,
        student_logits: "Float[Tensor, 'kept vocab']",
        output: "TeacherOutput",
        *,
        temperature: "Scalar",
    ) -> "Float[Tensor, '']":
        """Sum over tokens at a temperature, scaled so that gradients stay comparable.

        Raises:
            TrainingError: sampled tokens cannot estimate this divergence.
        """
        self.check(output)
        found = output.divergence_terms(
            self.terms(), student_logits=student_logits, temperature=temperature
        )
        return found.sum() * temperature**self.power

    def check(self, output: "TeacherOutput") -> None:
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
    def terms(self) -> "Terms":
        from limbeck.distillation.losses.divergences import forward_kl_terms

        return forward_kl_terms


class ReverseKl(Divergence):
    """KL(student || teacher): mode-seeking."""

    kind: Literal["reverse_kl"]

    @override
    def terms(self) -> "Terms":
        from limbeck.distillation.losses.divergences import reverse_kl_terms

        return reverse_kl_terms


class JensenShannon(Divergence):
    """Both sides against their mixture: bounded, between forward and reverse KL."""

    kind: Literal["jensen_shannon"]
    beta: Between = 0.5
    """The teacher's weight in the mixture."""

    @override
    def terms(self) -> "Terms":
        from limbeck.distillation.losses.divergences import jensen_shannon_terms

        return partial(jensen_shannon_terms, beta=self.beta)


class SkewForward(Divergence):
    """KL from the teacher to a mixture of both: forward KL with bounded gradients."""

    kind: Literal["skew_forward"]
    skew: Between = 0.1
    """The teacher's weight in the mixture."""

    @override
    def terms(self) -> "Terms":
        from limbeck.distillation.losses.divergences import skew_forward_terms

        return partial(skew_forward_terms, skew=self.skew)


class SkewReverse(Divergence):
    """KL from the student to a mixture of both: reverse KL with bounded gradients."""

    kind: Literal["skew_reverse"]
    skew: Between = 0.1
    """The student's weight in the mixture."""

    @override
    def terms(self) -> "Terms":
        from limbeck.distillation.losses.divergences import skew_reverse_terms

        return partial(skew_reverse_terms, skew=self.skew)


class TotalVariation(Divergence):
    """Half of the absolute difference: bounded by one, robust to a teacher's outliers."""

    # Absolute differences shrink with T, not with its square.
    power: ClassVar[int] = 1
    in_default_search: ClassVar[bool] = False
    kind: Literal["total_variation"]

    @override
    def terms(self) -> "Terms":
        from limbeck.distillation.losses.divergences import total_variation_terms

        return total_variation_terms


class Adaptive(Divergence):
    """Forward and reverse KL, weighted for each token by where the student differs."""

    separable: ClassVar[bool] = False
    in_default_search: ClassVar[bool] = False
    kind: Literal["adaptive"]
    head_ratio: Between = 0.5
    """Mass of the teacher's likeliest tokens that count as its head."""

    @override
    def terms(self) -> "Terms":
        from limbeck.distillation.losses.divergences import adaptive_terms

        return partial(adaptive_terms, head_ratio=self.head_ratio)


def searched_divergences() -> tuple[str, ...]:
    """The names of the table that a search tries by default."""
    found: dict[str, type[Divergence]] = {
        name: resolve(DIVERGENCES, name, what="divergence") for name in DIVERGENCES
    }
    return tuple(name for name, config in found.items() if config.in_default_search)


FORMS: dict[str, LogitsForm] = {"auto": "auto", "always": "factored", "never": "full"}


class SoftTarget(ObjectiveConfig):
    """The softened divergence from a teacher, mixed with the written answer."""

    packs_rows: ClassVar[bool] = True
    supports_on_policy: ClassVar[bool] = True

    kind: Literal["soft_target"]
    temperature: float | Schedule = 2.0
    """Above 0; what both distributions are softened by."""
    divergence: Annotated[Divergence, Choice(DIVERGENCES, what="divergence")] = ForwardKl(
        kind="forward_kl"
    )
    """The distance of the student's distribution from the teacher's."""
    weight: float | Schedule = 0.7
    """Share of the teacher, 0 to 1; the rest is cross-entropy with the written answer."""
    fused: Literal["auto", "always", "never"] = "auto"
    """Whether the loss is computed in chunks from hidden states; `auto`: for large vocabularies."""
    matching: tuple[Matching, ...] = ()
    """Layers whose hidden states, attention or values are matched with the teacher's."""

    @override
    def needs(self) -> Needs:
        lowest, highest = bounds(self.temperature)
        moving = highest if highest > lowest else 0.0
        return Needs(lowest, max_temperature=moving, logits_form=FORMS[self.fused])

    @field_validator("temperature")
    @classmethod
    def _check_temperature(cls, value: float | Schedule) -> float | Schedule:
        if not 0 < bounds(value)[0] <= bounds(value)[1] < float("inf"):
            raise ValueError(
                f"temperature {_show(value)} must stay above 0; for the teacher's likeliest token "
                "alone, learn its answers with `next_token`"
            )
        return value

    @field_validator("weight")
    @classmethod
    def _check_weight(cls, value: float | Schedule) -> float | Schedule:
        if not 0 <= bounds(value)[0] <= bounds(value)[1] <= 1:
            raise ValueError(f"weight {_show(value)} must stay between 0 and 1: it is a share")
        return value

    @property
    @override
    def matched_features(self) -> tuple[MatchedFeature, ...]:
        return tuple(
            MatchedFeature(item.what, item.student_layer, item.teacher_layer)
            for item in self.matching
        )

    @override
    def resolve_layers(
        self, context: "ObjectiveContext", *, batches: "Sequence[Batch]"
    ) -> "SoftTarget":
        from limbeck.distillation.features.layer_mapping import resolve_layers
        from limbeck.distillation.teachers.base import Teacher

        if not self.matching or context.teacher is None:
            return self
        assert isinstance(context.teacher, Teacher)
        return self.replace(
            matching=resolve_layers(
                self.matching, model=context.model, teacher=context.teacher, batches=batches
            )
        )

    @override
    def teacher_term(self, *, progress: float) -> TeacherTerm:
        return TeacherTerm(
            value_at(self.weight, progress=progress), value_at(self.temperature, progress=progress)
        )

    @override
    def with_teacher_weight(self, weight: float) -> "SoftTarget":
        return self.replace(weight=weight, matching=())

    @override
    def chunks_logits(self, *, vocab: int) -> bool:
        return self.fused == "always" or (self.fused == "auto" and vocab >= LARGE_VOCAB)

    @override
    def build(self, context: "ObjectiveContext") -> "Objective":
        """The objective for a student and its teacher.

        Raises:
            CheckpointError: the student has no such layer, the teacher shows none, or the
                student's head is not one that `fused: always` can read.
            ArtifactError: the teacher has no such layer.
        """
        from limbeck.distillation.losses.soft_target import build_soft_target

        return build_soft_target(self, context)


def _show(value: float | Schedule) -> str:
    return f"{value.start!r} to {value.to!r}" if isinstance(value, Schedule) else repr(value)


class CrossTokenizer(ObjectiveConfig):
    """The distance from a teacher with another tokenizer, mixed with the written answer."""

    kind: Literal["cross_tokenizer"]
    method: Literal["uld", "spans"] = "spans"
    """Sorted probabilities, or outcomes and spans that mean the same text."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """At 1 the probability of a span is exactly what its tokens multiply to."""
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the teacher; the rest is cross-entropy with the written answer."""

    @override
    def needs(self) -> Needs:
        return Needs(self.temperature, tokenizer="own")

    @override
    def teacher_term(self, *, progress: float) -> TeacherTerm:
        return TeacherTerm(self.weight, self.temperature)

    @override
    def with_teacher_weight(self, weight: float) -> "CrossTokenizer":
        return self.replace(weight=weight)

    @override
    def build(self, context: "ObjectiveContext") -> "Objective":
        from limbeck.distillation.losses.cross_tokenizer import CrossTokenizerObjective
        from limbeck.distillation.teachers.base import Teacher

        assert isinstance(context.teacher, Teacher)
        return CrossTokenizerObjective(self, teacher=context.teacher)
