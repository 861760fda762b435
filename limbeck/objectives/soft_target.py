"""Learning from a teacher: softened divergence, hard labels, and matched hidden states.

L = w T^2 D(teacher, student at T) + (1 - w) CE + m matching, each per kept token (Hinton et al.
2015, arXiv:1503.02531). Left out: where the teacher's outputs come from (`limbeck.data.signals`).
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from transformers import PreTrainedModel

from limbeck.contracts.config import Config, choice
from limbeck.contracts.errors import CheckpointError
from limbeck.models.batch import Batch
from limbeck.models.targets import Needs, Teacher
from limbeck.objectives import DIVERGENCES
from limbeck.objectives.divergences import ForwardKl
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
    """Pairs of layers whose hidden states are drawn together."""

    def needs(self) -> Needs:
        """What the targets must cover."""
        return Needs(self.temperature, tuple(pair.teacher_layer for pair in self.matching))

    def build(self, *, model: PreTrainedModel, teacher: Teacher) -> Objective:
        """The objective for a student and its teacher.

        Raises:
            CheckpointError: the student has no such layer, or the vocabularies differ.
        """
        text = model.config.get_text_config()
        layers = text.num_hidden_layers
        for pair in self.matching:
            if pair.student_layer > layers:
                raise CheckpointError(
                    f"matching wants student layer {pair.student_layer}, the student has {layers}"
                )
        return SoftTargetObjective(
            self, teacher=teacher, vocab=min(teacher.vocab, text.vocab_size),
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

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """The mixed loss of one micro-batch."""
        keep, labels = find_kept(batch.labels)
        layers = [pair.student_layer for pair in self.config.matching]
        output = forward(batch.input_ids, keep, layers, batch.pixels)
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
        if layers:
            matching = self.projections(output.hidden, targets.hidden)
            parts["matching"] = matching.item()
            total = total + matching
        return Loss(total, labels.numel(), parts)
