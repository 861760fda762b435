"""Learning from a teacher: softened divergence, hard labels, and matched inner states.

L = w T^2 D(teacher, student at T) + (1 - w) CE + m matching, each per kept token (Hinton et al.
2015, arXiv:1503.02531).
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from jaxtyping import Int
from pydantic import field_validator
from torch import Tensor
from typing_extensions import override

from limbeck.contracts.config import Choice
from limbeck.contracts.errors import CheckpointError, TrainingError
from limbeck.contracts.registry import DIVERGENCES
from limbeck.distillation.features.layer_mapping import require_layers, resolve_layers
from limbeck.distillation.features.matching import Matching, Projections
from limbeck.distillation.losses.chunked import Mix, chunked_loss
from limbeck.distillation.losses.divergences import Divergence, ForwardKl
from limbeck.distillation.losses.value_schedules import Schedule, bounds, value_at
from limbeck.distillation.targets import TeacherOutput, check_targets
from limbeck.distillation.teachers.base import Teacher
from limbeck.models.batch import Batch
from limbeck.models.forward import (
    LARGE_VOCAB,
    Kept,
    LogitsForm,
    returns_factored_logits,
)
from limbeck.objectives.base import (
    Forward,
    Loss,
    MatchedFeature,
    Needs,
    Objective,
    ObjectiveConfig,
    ObjectiveContext,
    TeacherTerm,
)
from limbeck.objectives.next_token import cross_entropy, cut_padding

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
        self, context: ObjectiveContext[Teacher], *, batches: Sequence[Batch]
    ) -> "SoftTarget":
        if not self.matching or context.teacher is None:
            return self
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
    def build(self, context: ObjectiveContext[Teacher]) -> Objective:
        """The objective for a student and its teacher.

        Raises:
            CheckpointError: the student has no such layer, the teacher shows none, or the
                student's head is not one that `fused: always` can read.
            ArtifactError: the teacher has no such layer.
        """
        model, teacher = context.model, context.teacher
        assert teacher is not None
        text = model.config.get_text_config()
        config = self.resolve_layers(context, batches=())
        if config.matching:
            require_layers(config.matching, model=model, teacher=teacher)
        fused = returns_factored_logits(model, form=FORMS[self.fused])
        if self.fused == "always" and not fused:
            raise CheckpointError(
                f"fused: always needs logits that are the head's plain product, and those of "
                f"{text.model_type!r} are not; set `fused: auto`"
            )
        return SoftTargetObjective(
            config,
            teacher=teacher,
            vocab=min(teacher.vocab, text.vocab_size),
            hidden=text.hidden_size,
            logits_form="factored" if fused else "full",
        )


def _show(value: float | Schedule) -> str:
    return f"{value.start!r} to {value.to!r}" if isinstance(value, Schedule) else repr(value)


class SoftTargetObjective(Objective):
    """Computes `SoftTarget`; holds the projections, which are dropped after training."""

    def __init__(
        self,
        config: SoftTarget,
        *,
        teacher: Teacher,
        vocab: int,
        hidden: int,
        logits_form: LogitsForm,
    ) -> None:
        super().__init__()
        self.config = config
        self.teacher = teacher
        self.vocab = vocab
        self.before_step(progress=0.0)
        self.projections = Projections(
            config.matching, hidden=hidden, teacher_hidden=teacher.hidden_size
        )
        self.layers = [pair.student_layer for pair in self.projections.states]
        self.attended = [pair.student_layer for pair in self.projections.attended]
        self.logits_form: LogitsForm = logits_form
        self.has_schedule = config.needs().max_temperature > 0

    def before_step(self, *, progress: float) -> None:
        """Move temperature and weight along their schedules."""
        self.weight, self.temperature = self.config.teacher_term(progress=progress)

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """The mixed loss of one micro-batch.

        Raises:
            TrainingError: the targets hold for one temperature, and it follows a schedule.
        """
        output = forward(batch, layers=self.layers, attention=self.attended, form=self.logits_form)
        targets = self.teacher(batch)
        if self.has_schedule and not targets.output.any_temperature:
            raise TrainingError(
                "these signals hold for one temperature, and `temperature` follows a schedule; "
                "give it a number, or use a live teacher"
            )
        # A student's own answer is no label to learn.
        weight = 1.0 if batch.answers_from == "student" else self.weight
        loss = self._distribution_loss(output, batch.targets, targets.output, weight=weight)
        parts = {"kl": loss.parts["kl"]} if batch.answers_from == "student" else loss.parts
        check_targets(sum(parts.values()), targets=targets, batch=batch)
        if not self.config.matching:
            return Loss(loss.sum, loss.count, parts)
        matching = self.projections(
            output.hidden,
            targets.hidden_states,
            student_heads=output.heads,
            teacher_heads=targets.attention,
            keep=batch.kept,
        )
        check_targets(matching.item(), targets=targets, batch=batch)
        return Loss(loss.sum + matching, loss.count, parts | {"matching": matching.item()})

    def _distribution_loss(
        self,
        output: Kept,
        labels: Int[Tensor, " kept"],
        teacher_output: TeacherOutput,
        *,
        weight: float,
    ) -> Loss:
        """The divergence and the cross-entropy, from logits or from states."""
        divergence, temperature = self.config.divergence, self.temperature
        if output.factored is not None:
            mix = Mix(divergence, temperature=temperature, weight=weight, vocab=self.vocab)
            states, head = output.factored
            return chunked_loss(
                states=states, head=head, labels=labels, output=teacher_output, mix=mix
            )
        logits = cut_padding(output.logits, vocab=self.vocab)
        kl = divergence.total(logits, teacher_output, temperature=temperature)
        ce = cross_entropy(logits=logits, targets=labels)
        total = kl if weight == 1 else weight * kl + (1 - weight) * ce
        return Loss(total, labels.numel(), {"kl": kl.item(), "ce": ce.item()})
