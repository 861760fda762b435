"""Measures a student and its teacher on a few records, for the warnings of `checks.py`.

Nothing is changed: no gradient is left behind, and training draws its random numbers anew at each
step.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.distillation.diagnostics import checks
from limbeck.distillation.teachers.base import Teacher
from limbeck.models.batch import IGNORED, Batch
from limbeck.models.forward import KeptForward
from limbeck.models.torch_session import TorchSession
from limbeck.models.vocabulary import as_token_ids
from limbeck.objectives.base import ObjectiveContext
from limbeck.objectives.config import ObjectiveConfig
from limbeck.runtimes.greedy import Request, decode_answers
from limbeck.runtimes.transformers import NumpySession

logger = logging.getLogger(__name__)
MAX_ANSWER_TOKENS = 16
"""Answers are compared by so many first tokens."""


@dataclass(frozen=True)
class Probe:
    """The student, its teacher and the examples that are measured before and after training."""

    config: ObjectiveConfig
    """Of the objective."""
    student: PreTrainedModel
    teacher: Teacher | None
    batch: Batch
    """Of training records."""
    questions: Batch
    """Whose questions are answered after training: held-out ones where there are some."""
    tokenizer_tokens: int
    show_token: Callable[[int], str]
    """A token as the tokenizer writes it."""
    fresh: bool
    """Whether the student's weights are random."""

    def before(self) -> list[str]:
        """The warnings before the first step, also logged."""
        with _eval_mode(self.student):
            found = [
                self._check_vocab_sizes(),
                self._check_initial_loss(),
                self._check_teacher_share(),
                *self._check_teacher(),
            ]
        return log_warnings(found, when="before training")

    def after(self) -> list[str]:
        """The warnings after the last step, also logged."""
        with _eval_mode(self.student):
            prompts, written = _split(self.questions)
            answers = _answer(self.student, prompts)
            found = [
                self._check_teacher_share(),
                checks.check_answer_collapse(answers, labels=written),
            ]
        return log_warnings(found, when="after training")

    def _batch_on_device(self) -> Batch:
        """The training records on the student's device, which training may have changed."""
        return self.batch.to(self.student.device)

    def _check_vocab_sizes(self) -> str | None:
        if self.teacher is None or self._has_own_tokenizer():
            return None
        return checks.check_vocab_sizes(
            student_rows=self.student.config.get_text_config().vocab_size,
            teacher_tokens=self.teacher.vocab,
            tokenizer_tokens=self.tokenizer_tokens,
        )

    def _has_own_tokenizer(self) -> bool:
        """Whether the teacher has its own tokens, which cannot be compared with the labels."""
        needs = self.config.needs()
        return needs is not None and needs.tokenizer == "own"

    @torch.no_grad()
    def _check_initial_loss(self) -> str | None:
        batch = self._batch_on_device()
        labels = batch.targets
        if not len(labels):
            return None
        logits = KeptForward(self.student)(batch).logits
        _, ce = checks.top1_agreement(logits.float().log_softmax(dim=-1), labels=labels)
        return checks.check_initial_loss(ce, vocab=logits.shape[1], fresh=self.fresh)

    def _check_teacher_share(self) -> str | None:
        term = self.config.teacher_term(progress=0.0)
        if self.teacher is None or term is None or not 0 < term.weight < 1:
            return None
        weight = term.weight
        share = checks.teacher_gradient_share(
            teacher_norm=weight * self._gradient_norm(1.0),
            label_norm=(1 - weight) * self._gradient_norm(0.0),
        )
        return checks.check_teacher_share(share, weight=weight)

    def _gradient_norm(self, weight: float) -> float:
        """The norm of the student's gradient with one term of the loss alone."""
        context = ObjectiveContext(self.student, teacher=self.teacher)
        objective = self.config.with_teacher_weight(weight).build(context)
        trained = [item for item in self.student.parameters() if item.requires_grad]
        loss = objective(KeptForward(self.student), self._batch_on_device()).sum
        found = torch.autograd.grad(loss, trained, allow_unused=True)
        return float(torch.nn.utils.get_total_norm([item for item in found if item is not None]))

    @torch.no_grad()
    def _check_teacher(self) -> Iterator[str | None]:
        term = self.config.teacher_term(progress=0.0)
        if self.teacher is None or term is None or self._has_own_tokenizer():
            return
        batch = self._batch_on_device()
        labels = batch.targets
        vocab, first = self.teacher.vocab, term.temperature
        output = self.teacher(batch).output
        soft, plain = (
            output.log_probs(vocab=vocab, temperature=temperature) for temperature in (first, 1.0)
        )
        if not len(labels):
            return
        yield checks.check_temperature(soft=soft, plain=plain, temperature=first)
        agreed, ce = checks.top1_agreement(plain, labels=labels)
        yield checks.check_agreement(agreed=agreed, ce=ce, vocab=vocab)
        opens = _opens_answer(batch)
        yield checks.check_first_tokens(
            plain.argmax(dim=-1)[opens].tolist(),
            labels=labels[opens].tolist(),
            show=self.show_token,
        )


def _opens_answer(batch: Batch) -> Bool[Tensor, " kept"]:
    """Which of the kept positions predict the first token of an answer."""
    kept = batch.kept
    before = torch.zeros_like(kept)
    before[:, 1:] = kept[:, :-1]
    return (kept & ~before)[kept]


def _split(batch: Batch) -> tuple[list[list[int]], list[tuple[int, ...]]]:
    """The questions of a text batch, and the first tokens of their written answers."""
    prompts, written = [], []
    if batch.images is not None:
        return prompts, written
    for ids, labels in zip(batch.input_ids, batch.labels, strict=True):
        places = (labels != IGNORED).nonzero().flatten()
        if len(places) and places[0] > 0:
            prompts.append(ids[: int(places[0])].tolist())
            written.append(tuple(labels[places[:MAX_ANSWER_TOKENS]].tolist()))
    return prompts, written


def _answer(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The most probable tokens after each prompt, up to the end or to the most compared."""
    if not prompts:
        return []
    answers: list[list[int]] = [[] for _ in prompts]
    session = NumpySession(TorchSession(model, num_slots=len(prompts)))
    requests = [Request(prompt, MAX_ANSWER_TOKENS) for prompt in prompts]
    end_ids = as_token_ids(model.config.get_text_config().eos_token_id)
    for item in decode_answers(session, requests, end_ids=end_ids):
        answers[item.request].append(item.token)
    return [tuple(answer) for answer in answers]


@contextmanager
def _eval_mode(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def log_warnings(found: Sequence[str | None], *, when: str) -> list[str]:
    """The sentences that were found, with when; also logged."""
    warnings = [f"{when}: {sentence}" for sentence in found if sentence is not None]
    for sentence in warnings:
        logger.warning(sentence)
    return warnings
