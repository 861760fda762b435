"""Verdicts on answers, by task and by form."""

import pytest
from typing_extensions import override

from limbeck.contracts.config import resolve
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Question
from limbeck.contracts.registry import TASKS
from limbeck.evaluation.answer_questions import record_answer
from limbeck.evaluation.tasks import Response, Task, Verdict, ask, score_response
from tests.support.fake_answerer import QUESTIONS, LookUp

BY_ID = {question.id: question for question in QUESTIONS}


def test_every_task_of_the_table_says_what_it_measures():
    assert set(TASKS) == {"recall", "choice", "triage", "finding", "intent"}
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


def test_a_task_of_another_form_than_its_own_is_refused():
    question = Question("t", "triage", "哪个科？", ("内科", "外科"), "list")
    with pytest.raises(DataError, match=r"'triage'.*'list'.*'single'"):
        record_answer(question, Response("内科", 1.0))


def test_a_choice_is_the_option_of_the_highest_score(tmp_path):
    (response,) = ask(LookUp(tmp_path, num_threads=1), (BY_ID["c1"],), max_new_tokens=8)
    assert response.text == "血压测量、心电图"
    assert len(response.option_scores) == 4
    assert response.option_scores[1] == max(response.option_scores)
