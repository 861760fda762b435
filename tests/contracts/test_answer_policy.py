"""The policy of a model's answers: emergencies, confidence, repetition."""

import json

import pytest
from pydantic import ValidationError

from limbeck.contracts.answer_policy import (
    POLICY,
    AnswerPolicy,
    Confidence,
    Emergency,
    PolicyFile,
    read_policy,
    repeats,
)
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.familiarity import Familiarity
from limbeck.contracts.safety_rules import SafetyRules

CONFIDENCE = Confidence(
    bias=-2.0,
    log_prob_weight=1.0,
    familiarity_weight=4.0,
    unseen_ngrams=0,
    min_confidence_ratio=0.5,
    min_familiarity_ratio=0.2,
    basis="right answers",
    num_held_out=100,
    num_right=90,
    num_foreign=100,
    declined_right_ratio=0.01,
    declined_foreign_ratio=0.99,
)


def test_what_is_written_is_read(tmp_path):
    policy = AnswerPolicy(
        PolicyFile(
            disclaimer={"zh": "甲", "en": "a"},
            emergencies=(Emergency(all_of=("痛",), zh="快", en="now"),),
            confidence=CONFIDENCE,
        ),
        Familiarity.of(["头痛看什么科？"]),
    )
    policy.write(tmp_path)
    read = read_policy(tmp_path)
    assert read.file == policy.file
    for question in ("头痛看什么科？", "hello"):
        judged = read.judge(question, confidence_ratio=0.9)
        assert judged == policy.judge(question, confidence_ratio=0.9)
    assert read.judge("头痛看什么科？", confidence_ratio=0.9).is_sure
    assert not read.judge("头痛看什么科？", confidence_ratio=0.0).is_sure
    assert not read.judge("hello", confidence_ratio=1.0).is_sure


def test_without_a_policy_nothing_is_declined(tmp_path):
    assert read_policy(tmp_path).judge("？", confidence_ratio=0.0) is None
    assert read_policy(tmp_path).metrics() == {"calibration": "not calibrated"}


def test_a_damaged_policy_is_named(tmp_path):
    (tmp_path / POLICY).write_text('{"confidence": {"bias": 1}}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=POLICY):
        read_policy(tmp_path)


def test_a_wrong_expression_is_refused():
    with pytest.raises(ValidationError, match="no regular expression"):
        Emergency(all_of=("(",), zh="快", en="now")


def test_a_policy_without_safety_rules_still_loads(tmp_path):
    emergency = Emergency(all_of=("痛",), zh="快", en="now")
    old = PolicyFile(emergencies=(emergency,)).model_dump(exclude={"safety"})
    (tmp_path / POLICY).write_text(json.dumps(old), encoding="utf-8")
    policy = read_policy(tmp_path)
    assert policy.file.safety == SafetyRules()
    assert policy.find_emergencies("头痛") == (emergency,)
    assert not policy.find_emergencies("头晕")


def test_repetition_is_found():
    assert repeats("症状：" + "头晕、" * 20)
    assert repeats("a" * 40)
    assert not repeats("a" * 39)
    assert repeats("x" + "一二三四五六七八九十" * 4)
    for text in ("| --- | --- |" * 9, " " * 90, "————" * 30, "头晕、头痛、心悸", "", "1, 2, 3"):
        assert not repeats(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("," * 300, True),
        (" ." * 120, True),
        ("-" * 80, False),
        ("Dose" + "-" * 200, False),
        ("Dose " * 40, True),
    ],
)
def test_signs_repeat_only_where_nothing_else_is_written(text, expected):
    assert repeats(text) is expected
