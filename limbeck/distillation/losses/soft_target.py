"""Learning from a teacher: softened divergence, hard labels, and matched inner states.

L = w T^2 D(teacher, student at T) + (1 - w) CE + m matching, each per kept token (Hinton et al.
2015, arXiv:1503.02531).
"""

from jaxtyping import Int
from torch import Tensor

from limbeck.contracts.errors import CheckpointError, TrainingError
from limbeck.distillation.features.layer_mapping import require_layers
from limbeck.distillation.features.matching import Projections
from limbeck.distillation.losses.chunked import Mix, chunked_loss
from limbeck.distillation.losses.config import FORMS, SoftTarget
from limbeck.distillation.targets import TeacherOutput, check_targets
from limbeck.distillation.teachers.base import Teacher
from limbeck.models.batch import Batch
from limbeck.models.config import LogitsForm
from limbeck.models.forward import Kept, returns_factored_logits
from limbeck.objectives.base import Forward, Loss, Objective, ObjectiveContext
from limbeck.objectives.next_token import cross_entropy, cut_padding


def build_soft_target(config: SoftTarget, context: ObjectiveContext) -> Objective:
    """The objective for a student and its teacher.

    Raises:
        CheckpointError: the student has no such layer, the teacher shows none, or the student's
            head is not one that `fused: always` can read.
        ArtifactError: the teacher has no such layer.
    """
    model, teacher = context.model, context.teacher
    assert isinstance(teacher, Teacher)
    text = model.config.get_text_config()
    resolved = config.resolve_layers(context, batches=())
    if resolved.matching:
        require_layers(resolved.matching, model=model, teacher=teacher)
    fused = returns_factored_logits(model, form=FORMS[config.fused])
    if config.fused == "always" and not fused:
        raise CheckpointError(
            f"fused: always needs logits that are the head's plain product, and those of "
            f"{text.model_type!r} are not; set `fused: auto`"
        )
    return SoftTargetObjective(
        resolved,
        teacher=teacher,
        vocab=min(teacher.vocab, text.vocab_size),
        hidden=text.hidden_size,
        logits_form="factored" if fused else "full",
    )


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
