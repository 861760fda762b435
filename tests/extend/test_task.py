"""The task of the page scores the answers of its questions: one class, one line."""

import pytest

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Question
from limbeck.contracts.registry import TASKS
from limbeck.evaluation.tasks import Response, score_response


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    monkeypatch.setitem(TASKS, "dose", "docs.extend.examples.task:Dose")


def ask(form="single"):
    return Question(
        id="q1",
        question="阿莫西林怎么吃？",
        answers=("一次 0.5 g，一日 3 次",),
        task="dose",
        form=form,
    )


@pytest.mark.parametrize(
    ("text", "correct", "agreement"),
    [
        ("每日3次，每次0.5克", True, 1.0),
        ("每日 3 次", False, 0.5),
        ("每次 0.5 克，每日 2 次", False, 1 / 3),
        ("遵医嘱", False, 0.0),
    ],
)
def test_numbers_decide(text, correct, agreement):
    verdict = score_response(ask(), Response(text, 1.0))
    assert verdict.correct is correct
    assert verdict.agreement_ratio == pytest.approx(agreement)


def test_another_form_is_refused():
    with pytest.raises(DataError, match="q1"):
        score_response(ask("list"), Response("3", 1.0))
