"""Learning from a teacher: softened divergence, hard labels, and matched hidden states.

L = w T^2 KL(teacher || student at T) + (1 - w) CE + m matching, each per kept token (Hinton et al.
2015, arXiv:1503.02531). Left out: where the teacher's outputs come from (`limbeck.data.signals`).
"""

from typing import Annotated, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.contracts.config import Config
from limbeck.contracts.errors import CheckpointError
from limbeck.models.batch import Batch, Targets
from limbeck.objectives.likelihood import cross_entropy
from limbeck.objectives.loss import Draws, Forward, Loss, Objective, find_kept
from limbeck.objectives.matching import Matching, Projections


@runtime_checkable
class Teacher(Protocol):
    """Where targets come from: a live model or recorded signals."""

    vocab: int
    """Real tokens, without padding rows."""
    hidden: int

    def __call__(self, batch: Batch) -> Targets:
        """What the teacher says at the batch's kept positions."""
        ...


def forward_kl(
    *,
    student_logits: Float[Tensor, "kept vocab"],
    teacher_logits: Float[Tensor, "kept vocab"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Sum over tokens of KL(teacher || student), both softened, times temperature squared."""
    teacher = (teacher_logits.float() / temperature).log_softmax(dim=-1)
    student = (student_logits.float() / temperature).log_softmax(dim=-1)
    return (teacher.exp() * (teacher - student)).sum() * temperature**2


def forward_kl_with_tail(
    *,
    student_logits: Float[Tensor, "kept vocab"],
    top_logits: Float[Tensor, "kept top"],
    top_ids: Int[Tensor, "kept top"],
    tail: Float[Tensor, " kept"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Forward KL over the teacher's top tokens and one bucket that holds all others.

    A lower bound of the full divergence, equal to it when the bucket is empty.
    """
    scaled = (student_logits.float() / temperature).log_softmax(dim=-1)
    student_top = scaled.gather(1, top_ids)
    others = scaled.scatter(1, top_ids, -torch.inf)
    # All tokens may be top tokens; logsumexp of nothing is -inf and has no gradient.
    student_tail = others.logsumexp(dim=-1).clamp(min=-80.0)
    mass = torch.cat([top_logits.float() / temperature, tail.float().unsqueeze(1)], dim=1)
    teacher = mass.log_softmax(dim=-1)
    student = torch.cat([student_top, student_tail.unsqueeze(1)], dim=1)
    held = teacher > -60.0
    terms = torch.where(held, teacher.exp() * (teacher - student), 0.0)
    return terms.sum() * temperature**2


class SoftTarget(Config):
    """The softened divergence from a teacher, mixed with the written answer."""

    draws: ClassVar[Draws] = "records"

    kind: Literal["soft_target"]
    temperature: Annotated[float, Field(gt=0)] = 2.0
    weight: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Share of the teacher; the rest is cross-entropy with the written answer."""
    matching: tuple[Matching, ...] = ()
    """Pairs of layers whose hidden states are drawn together."""

    def needs(self) -> tuple[float, tuple[int, ...]]:
        """The temperature and the teacher's layers that the targets must cover."""
        return self.temperature, tuple(pair.teacher_layer for pair in self.matching)

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
        kl = self._divergence(logits, targets)
        ce = cross_entropy(logits=logits, targets=labels)
        weight = self.config.weight
        total = weight * kl + (1 - weight) * ce
        parts = {"kl": kl.item(), "ce": ce.item()}
        if layers:
            matching = self.projections(output.hidden, targets.hidden)
            parts["matching"] = matching.item()
            total = total + matching
        return Loss(total, labels.numel(), parts)

    def _divergence(self, logits: Tensor, targets: Targets) -> Tensor:
        temperature = self.config.temperature
        if targets.ids is None or targets.tail is None:
            return forward_kl(
                student_logits=logits,
                teacher_logits=targets.logits[:, : self.vocab],
                temperature=temperature,
            )
        return forward_kl_with_tail(
            student_logits=logits,
            top_logits=targets.logits,
            top_ids=targets.ids,
            tail=targets.tail,
            temperature=temperature,
        )
