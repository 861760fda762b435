"""Verdicts on answers, by task and by form."""

import dataclasses
import json
from pathlib import Path

import pytest
from typing_extensions import override

from limbeck.contracts.answerer import as_prompt
from limbeck.contracts.config import resolve
from limbeck.contracts.errors import DataError, PromptLengthError
from limbeck.contracts.records import Question
from limbeck.contracts.registry import TASKS
from limbeck.evaluation.answer_questions import AnsweredQuestion, record_answer
from limbeck.evaluation.tasks import Response, Task, Verdict, ask, score_response
from tests.support.fake_answerer import QUESTIONS, LookUp

BY_ID = {question.id: question for question in QUESTIONS}


def test_every_task_of_the_table_describes_what_it_measures():
    assert set(TASKS) == {
        "recall",
        "choice",
        "triage",
        "finding",
        "intent",
        "test_split",
        "test_images",
    }
    for name in TASKS:
        task = resolve(TASKS, name, what="task")
        assert issubclass(task, Task)
        assert task.__doc__


class Yes(Task):
    """Whether the answer starts with a yes."""

    @override
    def _score(self, question, response):
        return Verdict(response.text.startswith("是"), 0.5)


def test_a_task_is_one_class_and_one_line(monkeypatch):
    question = Question("y", "yes", "是吗？", ("是",), "single")
    assert score_response(question, Response("是的", 1.0)) == Verdict(False, 0.0)
    monkeypatch.setitem(TASKS, "yes", f"{__name__}:Yes")
    assert score_response(question, Response("是的", 1.0)) == Verdict(True, 0.5)


@pytest.mark.parametrize(
    ("question", "answer", "correct"),
    [
        ("r1", "心血管内科", True),
        ("r1", "不是心血管内科", False),
        ("r1", "", False),
        ("r2", "头晕、心悸", True),
        ("r2", "头晕、咳嗽、心悸", False),
        ("r2", "", False),
        ("t2", "呼吸内科。", True),
        ("t2", "儿科", False),
        ("c1", "血压测量、心电图", True),
        ("c1", "皮肤镜", False),
        ("x1", "不知道。", True),
    ],
)
def test_verdicts(question, answer, correct):
    asked = record_answer(BY_ID[question], Response(answer, 0.5))
    assert asked.correct is correct
    assert asked.answer == answer


def test_an_intent_is_its_label_exactly():
    question = Question("i", "intent", "这是什么意图？", ("治疗方案",), "single")
    assert record_answer(question, Response("治疗方案", 1.0)).correct
    assert not record_answer(question, Response("治疗", 1.0)).correct


@pytest.mark.parametrize(
    ("label", "answer", "correct"),
    [
        ("+1", "+1", True),
        ("+1", "-1", False),
        ("+1", "1", False),
        ("-1", " −1 ", True),
        ("2.5mg", "25mg", False),
        ("C++", "c++", True),
        ("C++", "C", False),
        ("A.1", "A1", False),
    ],
)
def test_labels_are_compared_whole(label, answer, correct):
    options = ("+1", "-1", "1", "2.5mg", "25mg", "C", "C++", "A.1", "A1")
    question = Question("m", "mood", "评分：好", (label,), "single", options=options)
    assert record_answer(question, Response(answer, 1.0)).correct is correct


def test_the_language_of_a_question_decides_how_its_numbers_are_written():
    question = Question("n", "amount", "Wie viel?", ("1.000,5 kg",), "single")
    response = Response("1000,5 kg", 1.0)
    assert not record_answer(question, response).correct
    assert record_answer(dataclasses.replace(question, language="de"), response).correct


def test_a_task_of_another_form_than_its_own_is_refused():
    question = Question("t", "triage", "哪个科？", ("内科", "外科"), "list")
    with pytest.raises(DataError, match=r"'triage'.*'list'.*'single'"):
        record_answer(question, Response("内科", 1.0))


def test_a_choice_is_the_option_of_the_highest_score(tmp_path):
    (response,) = ask(LookUp(tmp_path, num_threads=1), (BY_ID["c1"],), max_new_tokens=8)
    assert response.text == "血压测量、心电图"
    assert len(response.option_scores) == 4
    assert response.option_scores[1] == max(response.option_scores)


class Short(LookUp):
    """Reads prompts of at most 12 characters, and prompt and answer of at most 20."""

    @override
    def answer(self, prompts, *, max_new_tokens):
        for prompt in prompts:
            self.check(as_prompt(prompt).question, most=12)
        return super().answer(prompts, max_new_tokens=max_new_tokens)

    @override
    def score(self, prompt, options):
        for option in options:
            self.check(as_prompt(prompt).question + option, most=20)
        return super().score(prompt, options)

    def check(self, text, *, most):
        if len(text) > most:
            raise PromptLengthError(f"{len(text)} characters")


def test_a_test_record_too_long_for_a_model_is_wrong_and_ends_nothing():
    texts = (
        ("高血压去医院看什么科？", "心血管内科", True, 1),
        ("高血压去医院看什么科？", "心血管内科，或者也可以看别的科", False, 0),
        ("高血压通常会出现什么症状？", "头痛、头晕和心悸", False, 0),
    )
    questions = tuple(
        Question(str(place), "test_split", question, (answer,), "single", (answer,))
        for place, (question, answer, _, _) in enumerate(texts)
    )
    responses = ask(Short(Path("teacher"), num_threads=1), questions, max_new_tokens=64)
    for question, response, (_, _, correct, num_scores) in zip(
        questions, responses, texts, strict=True
    ):
        assert score_response(question, response).correct == correct
        assert len(response.option_scores) == num_scores
    assert [response.is_too_long for response in responses] == [False, False, True]


@pytest.mark.parametrize(
    ("task", "form"), [("recall", "single"), ("mine", "list"), ("choice",) * 2]
)
def test_a_question_too_long_for_a_model_is_wrong_in_every_task(task, form):
    options = ("心血管内科", "口腔科，或者还有别的科可以看一看")
    questions = tuple(
        Question(text, task, text, options[:1], form, options if form == "choice" else ())
        for text in ("高血压？", "高血压通常会出现什么症状？" * 2)
    )
    answerer = Short(Path("teacher"), num_threads=1)
    responses = ask(answerer, questions[:1], max_new_tokens=64)
    responses += ask(answerer, questions, max_new_tokens=64)
    assert [response.is_too_long for response in responses] == [False, False, True]
    answered = record_answer(questions[1], responses[-1])
    assert answered.is_too_long and not answered.correct
    assert AnsweredQuestion.from_json(json.loads(json.dumps(vars(answered)))) == answered
