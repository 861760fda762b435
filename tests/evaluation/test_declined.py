"""Declined answers: right, wrong and foreign ones, each counted for what it is."""

import dataclasses

import pytest

from limbeck.contracts.answer_policy import AnswerPolicy, PolicyFile
from limbeck.contracts.familiarity import Familiarity
from limbeck.evaluation.answer_questions import AnsweredQuestion
from limbeck.evaluation.declined import measure_declined
from tests.support.answer_policies import CONFIDENCE

POLICY = AnswerPolicy(PolicyFile(confidence=CONFIDENCE), Familiarity.of(["头痛看什么科？"]))
SURE, UNSURE = 0.9, 0.1


def answered(answer, confidence_ratio, *, correct=False, question="头痛看什么科？", form="single"):
    return AnsweredQuestion(
        id=f"{question}{answer}{confidence_ratio}",
        task="recall",
        form=form,
        question=question,
        expected=("神经内科",),
        specialty="",
        group=f"{question}{answer}{confidence_ratio}",
        answer=answer,
        correct=correct,
        agreement_ratio=float(correct),
        confidence_ratio=confidence_ratio,
        option_scores=(),
    )


def measure(asked, foreign):
    return measure_declined(POLICY, answered=asked, foreign=foreign, unknown_answers=("不知道",))


def test_each_share_counts_its_own():
    found = measure(
        [
            answered("神经内科", SURE, correct=True),
            answered("神经内科", UNSURE, correct=True),
            answered("不知道。", SURE, correct=True),
            answered("骨科", SURE),
            answered("眼科", UNSURE),
            answered("不知道", SURE),
            answered("骨科", UNSURE, form="choice"),
        ],
        [
            answered("骨科", SURE, question="今天天气"),
            answered("骨科", SURE),
            answered("不知道", SURE),
            answered("鼻" * 50, SURE),
        ],
    )
    assert (found.right.value, found.right.count) == (1 / 2, 2)
    assert (found.wrong.value, found.wrong.count) == (pytest.approx(2 / 3), 3)
    assert (found.foreign.value, found.foreign.count) == (3 / 4, 4)
    assert found.foreign.low < 3 / 4 < found.foreign.high


def test_a_model_that_is_not_calibrated_has_none():
    policy = dataclasses.replace(POLICY, file=PolicyFile(), familiarity=None)
    assert measure_declined(policy, answered=(), foreign=(), unknown_answers=()) is None
