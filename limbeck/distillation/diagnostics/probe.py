"""Measures a student and its teacher on a few records, for the signs of `checks.py`.

Nothing is changed: no gradient is left behind, and training draws its random numbers anew at each
step.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from limbeck.distillation.diagnostics import checks
from limbeck.distillation.teachers.base import Teacher
from limbeck.models.batch import IGNORED, Batch
from limbeck.models.forward import KeptForward
from limbeck.models.torch_session import TorchSession
from limbeck.models.vocabulary import as_token_ids
from limbeck.objectives.base import ObjectiveConfig, ObjectiveContext
from limbeck.runtimes.greedy import Request, decode_greedily
from limbeck.runtimes.transformers import NumpySession

logger = logging.getLogger(__name__)
MAX_ANSWER_TOKENS = 16
"""Answers are compared by so many first tokens."""


@dataclass(frozen=True)
class Probe:
    """What is looked at, before and after training."""

    config: ObjectiveConfig
    """Of the objective."""
    student: PreTrainedModel
    teacher: Teacher | None
    batch: Batch
    """Of training records."""
    asked: Batch
    """Whose questions are asked after training: held-out ones where there are some."""
    tokenizer_tokens: int
    fresh: bool
    """Whether the student's weights mean nothing yet."""

    def before(self) -> list[str]:
        """Everything that is amiss before the first step, also logged."""
        with _judging(self.student):
            found = [self._vocabulary(), self._start(), self._share(), *self._teacher()]
        return _tell(found, when="before training")

    def after(self) -> list[str]:
        """Everything that is amiss after the last step, also logged."""
        with _judging(self.student):
            prompts, written = _split(self.asked)
            answers = _answer(self.student, prompts)
            found = [self._share(), checks.judge_majority(answers, labels=written)]
        return _tell(found, when="after training")

    def _shown(self) -> Batch:
        """The records, where the student is: training may have moved it to a GPU."""
        return self.batch.to(self.student.device)

    def _vocabulary(self) -> str | None:
        if self.teacher is None or self._foreign():
            return None
        return checks.judge_vocabulary(
            student_rows=self.student.config.get_text_config().vocab_size,
            teacher_tokens=self.teacher.vocab,
            tokenizer_tokens=self.tokenizer_tokens,
        )

    def _foreign(self) -> bool:
        """Whether the teacher speaks of tokens of its own, which no label can be held against."""
        needs = self.config.needs()
        return needs is not None and needs.tokenizer == "own"

    @torch.no_grad()
    def _start(self) -> str | None:
        batch = self._shown()
        labels = batch.targets
        if not len(labels):
            return None
        logits = KeptForward(self.student)(batch).logits
        _, ce = checks.agreement(logits.float().log_softmax(dim=-1), labels=labels)
        return checks.judge_start(ce, vocab=logits.shape[1], fresh=self.fresh)

    def _share(self) -> str | None:
        term = self.config.teacher_term(progress=0.0)
        if self.teacher is None or term is None or not 0 < term.weight < 1:
            return None
        weight = term.weight
        share = checks.teacher_share(
            teacher_norm=weight * self._norm(1.0), label_norm=(1 - weight) * self._norm(0.0)
        )
        return checks.judge_share(share, weight=weight)

    def _norm(self, weight: float) -> float:
        """The norm of the student's gradient with one term of the loss alone."""
        context = ObjectiveContext(self.student, teacher=self.teacher)
        objective = self.config.with_teacher_weight(weight).build(context)
        trained = [item for item in self.student.parameters() if item.requires_grad]
        loss = objective(KeptForward(self.student), self._shown()).sum
        found = torch.autograd.grad(loss, trained, allow_unused=True)
        return float(torch.nn.utils.get_total_norm([item for item in found if item is not None]))

    @torch.no_grad()
    def _teacher(self) -> Iterator[str | None]:
        term = self.config.teacher_term(progress=0.0)
        if self.teacher is None or term is None or self._foreign():
            return
        batch = self._shown()
        labels = batch.targets
        vocab, first = self.teacher.vocab, term.temperature
        output = self.teacher(batch).output
        soft, plain = (
            output.log_probs(vocab=vocab, temperature=temperature) for temperature in (first, 1.0)
        )
        if not len(labels):
            return
        yield checks.judge_temperature(soft=soft, plain=plain, temperature=first)
        agreed, ce = checks.agreement(plain, labels=labels)
        yield checks.judge_agreement(agreed=agreed, ce=ce, vocab=vocab)


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
    for item in decode_greedily(session, requests, end_ids=end_ids):
        answers[item.request].append(item.token)
    return [tuple(answer) for answer in answers]


@contextmanager
def _judging(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _tell(found: Sequence[str | None], *, when: str) -> list[str]:
    told = [f"{when}: {sentence}" for sentence in found if sentence is not None]
    for sentence in told:
        logger.warning(sentence)
    return told
