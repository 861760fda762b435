"""What held-out records say of a teacher: whether it knows more than its student, and whether its
part of the loss helps.

Nothing is changed, as in `probe.py`. Left out: a student without the teacher, which one training
does not have; `limbeck tune --quick-check` trains it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.distillation.diagnostics import checks
from limbeck.distillation.teachers.base import Teacher
from limbeck.evaluation.metrics import Interval, ratio_of_sums
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import ObjectiveConfig
from limbeck.objectives.next_token import cross_entropy, token_logs

Gradient = list[Float[Tensor, "..."] | None]


@dataclass(frozen=True)
class Cosines:
    """Of the gradients of both parts of the loss with that of the held-out cross-entropy."""

    teacher: float
    labels: float


@dataclass(frozen=True)
class HeldOutProbe:
    """The student, its teacher and held-out records with written answers."""

    config: ObjectiveConfig
    """Of the objective."""
    student: PreTrainedModel
    teacher: Teacher | None
    examples: Batch
    """Of training records, on which both parts of the loss are differentiated."""
    held_out: Sequence[Batch]
    """One record a row; empty where no validation record has a written answer."""

    def measure_gain(self) -> Interval | str:
        """The teacher's mean log-likelihood of written answers minus the student's, in nats a
        token, paired by record; a text says why there is none."""
        needs = self.config.needs()
        if self.teacher is None or needs is None:
            return "the objective has no teacher"
        if not self.held_out:
            return "no validation record has a written answer"
        if needs.tokenizer == "own":
            return "the teacher has another tokenizer, so its tokens cannot be compared"
        if self.teacher.live_model is None:
            return "recorded and mixed teachers give no likelihood of validation records"
        return measure_gain(self.student, self.teacher, batches=self.held_out)

    def measure_cosines(self) -> list[Cosines] | str:
        """On each half of the held-out records; a text says why there are none."""
        term = self.config.teacher_term(progress=1.0)
        if self.teacher is None or term is None or not 0 < term.weight < 1:
            return "the loss does not mix a teacher with written answers"
        if len(self.held_out) < 2:
            return "too few validation records have a written answer"
        trained = [item for item in self.student.parameters() if item.requires_grad]
        if not trained:
            return "the student's weights are frozen"
        context = ObjectiveContext(self.student, teacher=self.teacher)
        examples = self.examples.to(self.student.device)
        teacher, labels = (
            _differentiate(
                self.config.with_teacher_weight(weight)
                .build(context)(KeptForward(self.student), examples)
                .sum,
                trained,
            )
            for weight in (1.0, 0.0)
        )
        return [
            Cosines(cosine(teacher, held_out), cosine(labels, held_out))
            for held_out in (
                self._held_out_gradient(part, trained)
                for part in (self.held_out[::2], self.held_out[1::2])
            )
        ]

    def _held_out_gradient(self, batches: Sequence[Batch], trained: Sequence[Tensor]) -> Gradient:
        total: Gradient = [None] * len(trained)
        for batch in batches:
            batch = batch.to(self.student.device)
            logits = KeptForward(self.student)(batch).logits
            found = _differentiate(cross_entropy(logits=logits, targets=batch.targets), trained)
            total = [
                new if old is None else old if new is None else old + new
                for old, new in zip(total, found, strict=True)
            ]
        return total

    def check(self, *, when: Literal["before", "after"]) -> tuple[list[str], dict[str, object]]:
        """The warnings before or after training, and the figures behind them or why there is none.

        Before training only the likelihoods are compared: gradients of a student that has learnt
        nothing agree whatever the teacher.
        """
        training = self.student.training
        self.student.eval()
        try:
            gain = self.measure_gain()
            cosines = self.measure_cosines() if when == "after" else []
        finally:
            self.student.train(training)
        found: list[str | None] = []
        figures: dict[str, object] = {}
        if isinstance(gain, str):
            figures["gain_skipped"] = gain
        else:
            figures |= {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
            found.append(checks.check_teacher_gain(gain, when=when))
        if isinstance(cosines, str):
            figures["cosines_skipped"] = cosines
        elif cosines:
            figures["teacher_cosines"] = [item.teacher for item in cosines]
            figures["label_cosines"] = [item.labels for item in cosines]
            found.append(
                checks.check_teacher_cosines(
                    teacher=[item.teacher for item in cosines],
                    labels=[item.labels for item in cosines],
                )
            )
        return [item for item in found if item is not None], figures


@torch.no_grad()
def measure_gain(
    student: PreTrainedModel, teacher: Teacher, *, batches: Sequence[Batch]
) -> Interval | str:
    """Teacher minus student: mean log-likelihood of the labels in nats a token, by record."""
    sums: list[float] = []
    counts: list[int] = []
    for batch in batches:
        batch = batch.to(student.device)
        logits = KeptForward(student)(batch).logits
        vocab = min(teacher.vocab, logits.shape[1])
        labels = batch.targets
        known = labels < vocab
        ours = token_logs(logits[known][:, :vocab], labels[known])
        logs = teacher(batch).output.log_probs(vocab=vocab, temperature=1.0)[known]
        theirs = logs.gather(1, labels[known].unsqueeze(1)).squeeze(1)
        rows = batch.kept.nonzero()[:, 0][known].cpu()
        gains = torch.zeros(len(batch.input_ids)).index_add_(0, rows, (theirs - ours).cpu())
        sums += gains.tolist()
        counts += torch.bincount(rows, minlength=len(batch.input_ids)).tolist()
    if not sum(counts):
        return "no validation record has a written answer"
    return ratio_of_sums(sums=np.array(sums), counts=np.array(counts))


def cosine(first: Gradient, second: Gradient) -> float:
    """Of two gradients, parts without one left out; 0 where one of them is zero."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    dot = sum(float((a * b).sum()) for a, b in pairs)
    norms = [
        float(torch.nn.utils.get_total_norm([item for item in part if item is not None]))
        for part in (first, second)
    ]
    return dot / (norms[0] * norms[1]) if all(norms) else 0.0


def _differentiate(loss: Float[Tensor, ""], trained: Sequence[Tensor]) -> Gradient:
    return list(torch.autograd.grad(loss, trained, allow_unused=True))
