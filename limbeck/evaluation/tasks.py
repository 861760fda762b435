"""Evaluation tasks: how a model answers a question, and when its answer counts as right.

A task is one class and one line of `TASKS`; the first line of its docstring is what `limbeck list
tasks` prints. The form of a question decides where no task has its name (`score_by_form`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

from typing_extensions import override

from limbeck.contracts.answerer import Answerer, Prompt, alternate
from limbeck.contracts.config import resolve
from limbeck.contracts.errors import DataError, PromptLengthError
from limbeck.contracts.records import Question
from limbeck.contracts.registry import TASKS
from limbeck.evaluation.metrics import entity_f1, exact_match, same_label

LIST_F1 = 0.8
"""A list answer is right from this entity F1 upwards."""


@dataclass(frozen=True)
class Response:
    """What a model gave: a generated text, or a chosen option with the score of each."""

    text: str
    confidence_ratio: float
    """Of a generated text; 1 for a chosen option."""
    option_scores: tuple[float, ...] = ()
    """Mean log-probability per token of each option: for `choice`, of what an image shows, and of
    a test record's answer."""
    answer_tokens: int = 0
    """Tokens of a test record's answer, its end included, where it is scored."""
    is_too_long: bool = False
    """Whether the model could not read the whole question; it then gave nothing."""


@dataclass(frozen=True)
class Verdict:
    """Whether a response is right, and by what degree it agrees."""

    correct: bool
    agreement_ratio: float
    """Entity F1 for a list; 1 or 0 otherwise."""


class Task(ABC):
    """How the answers to one kind of question are scored."""

    form: ClassVar[str | None] = None
    """The only form that its questions may have; None for any."""
    scores_options: ClassVar[bool] = False
    """Whether the options of every question are scored besides; those about images always are."""

    def score(self, question: Question, response: Response) -> Verdict:
        """The verdict on one response.

        Raises:
            DataError: the question has another form than the task's.
        """
        if self.form is not None and question.form != self.form:
            raise DataError(
                f"question {question.id!r}: task {question.task!r} holds a question of form "
                f"{question.form!r}, expected {self.form!r}; give it to a task of another name"
            )
        return self._score(question, response)

    @abstractmethod
    def _score(self, question: Question, response: Response) -> Verdict:
        """The verdict on the response to a question of the right form."""


@final
class Recall(Task):
    """Generated facts under unseen phrasings: single exact, lists from entity F1 0.8."""

    @override
    def _score(self, question: Question, response: Response) -> Verdict:
        return score_by_form(question, response)


@final
class MultipleChoice(Task):
    """One of four options, the one of highest mean log-probability per token."""

    form = "choice"

    @override
    def _score(self, question: Question, response: Response) -> Verdict:
        return score_exactly(question, response)


@final
class Triage(Task):
    """The right specialty for complaints never trained on, generated exactly."""

    form = "single"

    @override
    def _score(self, question: Question, response: Response) -> Verdict:
        return score_exactly(question, response)


@final
class ImageFinding(Task):
    """What an image shows, generated exactly; the options' scores give the area under the ROC."""

    form = "single"

    @override
    def _score(self, question: Question, response: Response) -> Verdict:
        return score_exactly(question, response)


@final
class Intent(Task):
    """What a query asks for: the right label, generated exactly."""

    form = "single"

    @override
    def _score(self, question: Question, response: Response) -> Verdict:
        return score_exactly(question, response)


@final
class HeldOutTest(Task):
    """Test records: as recall, and by the log-likelihood of the answer that the record holds."""

    scores_options = True

    @override
    def _score(self, question: Question, response: Response) -> Verdict:
        return score_by_form(question, response)


def score_response(question: Question, response: Response) -> Verdict:
    """The verdict of the question's task; of its form where no task of the table has its name."""
    task = find_task(question)
    return score_by_form(question, response) if task is None else task.score(question, response)


def find_task(question: Question) -> Task | None:
    """The task of a question; None where the table has none of its name."""
    if question.task not in TASKS:
        return None
    task: type[Task] = resolve(TASKS, question.task, what="task")
    return task()


def score_by_form(question: Question, response: Response) -> Verdict:
    """Lists by entity F1, everything else exactly."""
    return (score_list if question.form == "list" else score_exactly)(question, response)


def score_list(question: Question, response: Response) -> Verdict:
    """Right from entity F1 0.8 upwards; agrees by that F1."""
    f1 = entity_f1(response.text, expected=question.answers, language=question.language)
    return Verdict(f1 >= LIST_F1, f1)


def score_exactly(question: Question, response: Response) -> Verdict:
    """Right where the text equals one of the answers, punctuation and spaces aside.

    Numbers with their units are compared as quantities, labels as whole texts.
    """
    if is_label(question):
        correct = same_label(response.text, expected=question.answers)
    else:
        correct = exact_match(response.text, expected=question.answers, language=question.language)
    return Verdict(correct, float(correct))


def is_label(question: Question) -> bool:
    """Whether the right answer is one of a fixed set of labels."""
    is_one = question.form == "choice" or len(question.options) > 1
    return is_one and set(question.answers) <= set(question.options)


def ask(
    answerer: Answerer, questions: tuple[Question, ...], *, max_new_tokens: int
) -> list[Response]:
    """A model's response to each question of one batch; all generate, or all choose.

    A question that is too long for the model has an empty response, which counts as wrong: it ends
    no evaluation.
    """
    try:
        return _ask(answerer, questions, max_new_tokens=max_new_tokens)
    except PromptLengthError:
        if len(questions) == 1:
            return [Response("", 0.0, is_too_long=True)]
    return [
        response
        for question in questions
        for response in ask(answerer, (question,), max_new_tokens=max_new_tokens)
    ]


def _ask(
    answerer: Answerer, questions: tuple[Question, ...], *, max_new_tokens: int
) -> list[Response]:
    if questions[0].form == "choice":
        return [_choose(answerer, question) for question in questions]
    task = find_task(questions[0])
    if task is not None and task.scores_options:
        return _generate_and_score(answerer, questions, max_new_tokens=max_new_tokens)
    answers = answerer.answer(
        [make_prompt(question) for question in questions], max_new_tokens=max_new_tokens
    )
    return [
        Response(answer.text, answer.confidence_ratio, _score_findings(answerer, question))
        for question, answer in zip(questions, answers, strict=True)
    ]


def _generate_and_score(
    answerer: Answerer, questions: tuple[Question, ...], *, max_new_tokens: int
) -> list[Response]:
    """Generated answers, and the scores of the written ones; none where these do not fit."""
    prompts = [make_prompt(question) for question in questions]
    answers = answerer.answer(prompts, max_new_tokens=max_new_tokens)
    found = []
    for question, prompt, answer in zip(questions, prompts, answers, strict=True):
        try:
            scores = tuple(answerer.score(prompt, question.options))
        except PromptLengthError:
            scores = ()
        num_tokens = answerer.count_answer_tokens(question.options[0]) if scores else 0
        found.append(Response(answer.text, answer.confidence_ratio, scores, num_tokens))
    return found


def make_prompt(question: Question) -> Prompt:
    """The prompt of a question, with the turns and the instructions that stand before it."""
    messages = alternate([*question.history, question.question], system=question.system)
    return Prompt(messages, tuple(map(Path, question.images)))


def _score_findings(answerer: Answerer, question: Question) -> tuple[float, ...]:
    """How likely the model finds each thing that an image may show; nothing without one."""
    if not question.images:
        return ()
    return tuple(answerer.score(make_prompt(question), question.options))


def _choose(answerer: Answerer, question: Question) -> Response:
    scores = answerer.score(make_prompt(question), question.options)
    best = max(range(len(scores)), key=scores.__getitem__)
    return Response(question.options[best], 1.0, tuple(scores))
