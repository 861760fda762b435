"""Evaluation tasks: how a model is asked a question, and when its answer counts as right.

A task is a function of a question and the model's response; its docstring is what `limbeck list
tasks` prints. A task of another name is judged by the form of its questions (`by_form`).
"""

from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.answerer import Answerer, PromptLike, as_prompt
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Question
from limbeck.evaluation.metrics import entity_f1, exact_match

LIST_F1 = 0.8
"""A list answer is right from this entity F1 upwards."""


@dataclass(frozen=True)
class Response:
    """What a model gave: a generated text, or a chosen option with the score of each."""

    text: str
    confidence_ratio: float
    """Of a generated text; 1 for a chosen option."""
    option_scores: tuple[float, ...] = ()
    """Mean log-probability per token of each option; for `choice`, and of what an image shows."""


@dataclass(frozen=True)
class Verdict:
    """Whether a response is right, and by what degree it agrees."""

    correct: bool
    agreement_ratio: float
    """Entity F1 for a list; 1 or 0 otherwise."""


def recall(question: Question, response: Response) -> Verdict:
    """Generated facts under unseen phrasings: single exact, lists from entity F1 0.8."""
    return by_form(question, response)


def choice(question: Question, response: Response) -> Verdict:
    """One of four options, the one of highest mean log-probability per token."""
    return _by_expected_form(question, response, form="choice")


def triage(question: Question, response: Response) -> Verdict:
    """The right specialty for a set of symptoms never trained on, generated exactly."""
    return _by_expected_form(question, response, form="single")


def intent(question: Question, response: Response) -> Verdict:
    """What a query asks for: the right label, generated exactly."""
    return _by_expected_form(question, response, form="single")


def finding(question: Question, response: Response) -> Verdict:
    """What an image shows, generated exactly; the options' scores give the area under the ROC."""
    return _by_expected_form(question, response, form="single")


def by_form(question: Question, response: Response) -> Verdict:
    """Judge any task: lists by entity F1, everything else exactly."""
    if question.form == "list":
        f1 = entity_f1(response.text, expected=question.answers)
        return Verdict(f1 >= LIST_F1, f1)
    correct = exact_match(response.text, expected=question.answers)
    return Verdict(correct, float(correct))


def _by_expected_form(question: Question, response: Response, *, form: str) -> Verdict:
    if question.form != form:
        raise DataError(
            f"question {question.id!r}: task {question.task!r} holds a question of form "
            f"{question.form!r}, expected {form!r}; give it to a task of another name"
        )
    return by_form(question, response)


def ask(
    answerer: Answerer, questions: tuple[Question, ...], *, max_new_tokens: int
) -> list[Response]:
    """A model's response to each question of one batch; all generate, or all choose."""
    if questions[0].form == "choice":
        return [_choose(answerer, question) for question in questions]
    answers = answerer.answer(
        [make_prompt(question) for question in questions], max_new_tokens=max_new_tokens
    )
    return [
        Response(answer.text, answer.confidence_ratio, _score_findings(answerer, question))
        for question, answer in zip(questions, answers, strict=True)
    ]


def make_prompt(question: Question) -> PromptLike:
    """What an answerer is asked."""
    if not question.images:
        return question.question
    return as_prompt(question.question, images=tuple(map(Path, question.images)))


def _score_findings(answerer: Answerer, question: Question) -> tuple[float, ...]:
    """How likely the model finds each thing that an image may show; nothing without one."""
    if not question.images:
        return ()
    return tuple(answerer.score(make_prompt(question), question.options))


def _choose(answerer: Answerer, question: Question) -> Response:
    scores = answerer.score(make_prompt(question), question.options)
    best = max(range(len(scores)), key=scores.__getitem__)
    return Response(question.options[best], 1.0, tuple(scores))
