"""Learning from a teacher: softened divergence, hard labels, and matched inner states.

L = w T^2 D(teacher, student at T) + (1 - w) CE + m matching, each per kept token (Hinton et al.
2015, arXiv:1503.02531). Left out: where the teacher's outputs come from (`limbeck.data.signals`).
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from transformers import PreTrainedModel

from limbeck.contracts.config import Config, choice
from limbeck.models.batch import Batch
from limbeck.models.targets import Needs, Teacher
from limbeck.objectives import DIVERGENCES
from limbeck.objectives.divergences import ForwardKl
from limbeck.objectives.layer_maps import ask, settle
from limbeck.objectives.likelihood import cross_entropy
from limbeck.objectives.loss import Draws, Forward, Loss, Objective, find_kept
from limbeck.objectives.matching import Matching, Projections


class SoftTarget(Config):
    """The softened divergence from a teacher, mixed with the written answer."""

    draws: ClassVar[Draws] = "records"

    kind: Literal["soft_target"]
    temperature: Annotated[float, Field(gt=0)] = 2.0
    divergence: choice(DIVERGENCES, what="divergence") = ForwardKl(kind="forward_kl")  # pyright: ignore[reportInvalidTypeForm]
    """How far the student is from what the teacher says."""
    weight: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Share of the teacher; the rest is cross-entropy with the written answer."""
    matching: tuple[Matching, ...] = ()
    """Layers whose inner states are drawn together."""

    def needs(self) -> Needs:
        """What the targets must cover."""
        pairs = [item for item in self.matching if item.layers == "pair" and item.what == "hidden"]
        return Needs(self.temperature, tuple(pair.teacher_layer for pair in pairs))

    def build(self, *, model: PreTrainedModel, teacher: Teacher) -> Objective:
        """The objective for a student and its teacher.

        Raises:
            CheckpointError: the student has no such layer, or the teacher shows none.
            ArtifactError: the teacher has no such layer.
        """
        text = model.config.get_text_config()
        config = self
        if self.matching:
            config = self.replace(matching=settle(self.matching, model=model, teacher=teacher))
            ask(config.matching, model=model, teacher=teacher)
        return SoftTargetObjective(
            config, teacher=teacher, vocab=min(teacher.vocab, text.vocab_size),
            hidden=text.hidden_size,
        )  # fmt: skip


class SoftTargetObjective(Objective):
    """Computes `SoftTarget`; holds the projections, which are dropped after training."""

    def __init__(self, config: SoftTarget, *, teacher: Teacher, vocab: int, hidden: int) -> None:
        super().__init__()
        self.config = config
        self.teacher = teacher
        self.vocab = vocab
        self.projections = Projections(
            config.matching, hidden=hidden, teacher_hidden=teacher.hidden
        )
        self.layers = [pair.student_layer for pair in self.projections.states]
        self.attended = [pair.student_layer for pair in self.projections.attended]

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """The mixed loss of one micro-batch."""
        keep, labels = find_kept(batch.labels)
        given = {"attended": self.attended} if self.attended else {}
        output = forward(batch.input_ids, keep, self.layers, batch.pixels, **given)
        targets = self.teacher(batch)
        logits = output.logits[:, : self.vocab]
        kl = self.config.divergence.total(logits, targets.said, temperature=self.config.temperature)
        if batch.written == "student":  # its own answer is no label to learn
            total, parts = kl, {"kl": kl.item()}
        else:
            ce = cross_entropy(logits=logits, targets=labels)
            weight = self.config.weight
            total = weight * kl + (1 - weight) * ce
            parts = {"kl": kl.item(), "ce": ce.item()}
        if self.config.matching:
            matching = self.projections(
                output.hidden, targets.hidden, student_heads=output.heads,
                teacher_heads=targets.heads, keep=keep,
            )  # fmt: skip
            parts["matching"] = matching.item()
            total = total + matching
        return Loss(total, labels.numel(), parts)
