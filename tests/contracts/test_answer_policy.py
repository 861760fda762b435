"""The policy of a model's answers: emergencies, confidence, repetition."""

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
from limbeck.data.packs.load import load_pack

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


@pytest.mark.parametrize(
    ("question", "sign"),
    [
        ("胸口剧痛出冷汗左胳膊发麻怎么办", "心肌梗死"),
        ("Sudden chest pain and my left arm hurts", "heart attack"),
        ("我爸突然嘴歪了，右边胳膊抬不起来", "脑卒中"),
        ("我不想活了", "并不孤单"),
        ("孩子误吞了纽扣电池", "中毒"),
        ("怀孕八周出血还剧痛", "孕期"),
        ("宝宝两个月高烧40度", "婴幼儿"),
        ("吃了海鲜过敏，喉咙发紧喘不上气", "过敏反应"),
    ],
)
def test_the_medical_pack_warns(question, sign):
    emergencies = load_pack("medical").description.emergencies
    policy = AnswerPolicy(PolicyFile(emergencies=emergencies))
    assert any(sign in item.zh + item.en for item in policy.find_emergencies(question))


@pytest.mark.parametrize(
    "question",
    ["高血压有哪些常见症状？", "冠心病该挂什么科？", "today's weather", "儿童感冒吃什么药？"],
)
def test_and_not_without_a_sign(question):
    emergencies = load_pack("medical").description.emergencies
    assert not AnswerPolicy(PolicyFile(emergencies=emergencies)).find_emergencies(question)


def test_repetition_is_seen():
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
