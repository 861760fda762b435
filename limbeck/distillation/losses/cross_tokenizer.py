"""Learning from a teacher with another tokenizer.

Both write the same text; what is compared are spans that both tokenizations have
(`TokenAlignment`).
L = w D + (1 - w) CE, per kept token of the student.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from limbeck.contracts.errors import TrainingError
from limbeck.distillation.losses.config import CrossTokenizer
from limbeck.distillation.losses.divergences import forward_kl_terms
from limbeck.distillation.targets import TokenAlignment, check_targets
from limbeck.distillation.teachers.base import Teacher
from limbeck.models.batch import Batch
from limbeck.objectives.base import Forward, Loss, Objective
from limbeck.objectives.next_token import cross_entropy, token_logs

LEAST_PROBABILITY = 1e-30
"""Keeps the logarithm of an outcome that neither side can write finite."""
LEAST_LOG = 1e-6
"""Keeps the rest of a span that is certain above zero."""


def universal_distance(
    *,
    student_logits: Float[Tensor, "spans student_vocab"],
    teacher_logits: Float[Tensor, "spans teacher_vocab"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Sum over positions of |p - q| summed over both sorted, the shorter one filled with zeros.

    ULD (Boizard et al. 2024, arXiv:2402.12030): the Wasserstein distance where every two tokens
    are equally far from each other.
    """
    width = max(student_logits.shape[1], teacher_logits.shape[1])
    student, teacher = (
        functional.pad(
            (logits.float() / temperature).softmax(dim=-1).sort(dim=-1, descending=True).values,
            (0, width - logits.shape[1]),
        )
        for logits in (student_logits, teacher_logits)
    )
    return (teacher - student).abs().sum()


def outcome_kl(
    *,
    student_logits: Float[Tensor, "spans student_vocab"],
    teacher_logits: Float[Tensor, "spans teacher_vocab"],
    alignment: TokenAlignment,
    temperature: float,
) -> Float[Tensor, ""]:
    """Sum over positions of KL(teacher || student) between what both can say next.

    The outcomes are texts that are a token of both, the end, and one bucket for all else.
    """
    student, teacher = (
        _gather(logits, outcomes, num_outcomes=alignment.num_outcomes, temperature=temperature)
        for logits, outcomes in (
            (student_logits, alignment.student_outcomes),
            (teacher_logits, alignment.teacher_outcomes),
        )
    )
    return forward_kl_terms(student, teacher).sum()


def _gather(
    logits: Float[Tensor, "spans vocab"],
    outcomes: Int[Tensor, " vocab"],
    *,
    num_outcomes: int,
    temperature: float,
) -> Float[Tensor, "spans outcomes"]:
    p = (logits.float() / temperature).softmax(dim=-1)
    summed = p.new_zeros(len(p), num_outcomes).index_add(1, outcomes, p)
    return summed.clamp(min=LEAST_PROBABILITY).log()


def span_kl(
    *, student_logs: Float[Tensor, " spans"], teacher_logs: Float[Tensor, " spans"]
) -> Float[Tensor, ""]:
    """Sum over spans of KL(teacher || student) between "this text" and "any other text"."""
    both = []
    for logs in (student_logs, teacher_logs):
        logs = logs.clamp(max=-LEAST_LOG)
        both.append(torch.stack([logs, torch.log(-torch.expm1(logs))], dim=-1))
    student, teacher = both
    return forward_kl_terms(student, teacher).sum()


def merge(
    logs: Float[Tensor, " kept"], spans: Int[Tensor, " kept"], *, num_spans: int
) -> Float[Tensor, " spans"]:
    """The log-probability of each span: the sum of its tokens'."""
    held = spans >= 0
    return logs.new_zeros(num_spans).index_add(0, spans[held], logs[held])


def find_starts(spans: Int[Tensor, " kept"]) -> Int[Tensor, " spans"]:
    """The positions whose next token begins a span."""
    before = functional.pad(spans[:-1], (1, 0), value=-1)[: len(spans)]
    return ((spans >= 0) & (spans != before)).nonzero().flatten()


class CrossTokenizerObjective(Objective):
    """Computes `CrossTokenizer`."""

    def __init__(self, config: CrossTokenizer, *, teacher: Teacher) -> None:
        super().__init__()
        self.config = config
        self.teacher = teacher

    def forward(self, forward: Forward, batch: Batch) -> Loss:
        """The mixed loss of one micro-batch; its parts are the teacher's `kl` and `ce`."""
        labels = batch.targets
        logits = forward(batch).logits
        targets = self.teacher(batch)
        teacher_logits = targets.output.full_logits()
        if targets.alignment is None or teacher_logits is None:
            raise TrainingError(
                "objective 'cross_tokenizer' got a teacher that does not read the records' text; "
                "name a checkpoint as `teacher`"
            )
        limit = len(targets.alignment.student_outcomes)
        if logits.shape[1] < limit:
            raise TrainingError(
                f"the student has {logits.shape[1]} rows for {limit} tokens: make it with the "
                "corpus's tokenizer"
            )
        distance = cross_distance(
            student_logits=logits,
            labels=labels,
            teacher_logits=teacher_logits,
            alignment=targets.alignment,
            config=self.config,
        )
        ce = cross_entropy(logits=logits[:, :limit], targets=labels)
        weight = self.config.weight
        total = weight * distance + (1 - weight) * ce
        parts = {"kl": distance.item(), "ce": ce.item()}
        check_targets(sum(parts.values()), targets=targets, batch=batch)
        return Loss(total, labels.numel(), parts)


def cross_distance(
    *,
    student_logits: Float[Tensor, "kept student_rows"],
    labels: Int[Tensor, " kept"],
    teacher_logits: Float[Tensor, "teacher_kept teacher_rows"],
    alignment: TokenAlignment,
    config: CrossTokenizer,
) -> Float[Tensor, ""]:
    """Sum over common spans of the distance that the config names, scaled by its temperature."""
    temperature = config.temperature
    student_logits = student_logits[:, : len(alignment.student_outcomes)]
    teacher_logits = teacher_logits[:, : len(alignment.teacher_outcomes)]
    sides = (alignment.student_spans, alignment.teacher_spans)
    student_starts, teacher_starts = map(find_starts, sides)
    at_starts = {
        "student_logits": student_logits[student_starts],
        "teacher_logits": teacher_logits[teacher_starts],
    }
    if config.method == "uld":
        # Absolute differences shrink with T, not with its square.
        return universal_distance(**at_starts, temperature=temperature) * temperature
    total = outcome_kl(**at_starts, alignment=alignment, temperature=temperature)
    num_spans = len(student_starts)
    student, teacher = (
        merge(token_logs(logits, tokens, temperature=temperature), spans, num_spans=num_spans)
        for logits, tokens, spans in zip(
            (student_logits, teacher_logits), (labels, alignment.teacher_tokens), sides, strict=True
        )
    )
    lengths = [torch.bincount(spans[spans >= 0], minlength=num_spans) for spans in sides]
    long = (lengths[0] > 1) | (lengths[1] > 1)
    total = total + span_kl(student_logs=student[long], teacher_logs=teacher[long])
    return total * temperature**2
