"""What counts as one question, and that every way to share it is found."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from limbeck.contracts.errors import LeakError
from limbeck.contracts.leaks import LeakIndex, check_leaks, normalise
from limbeck.contracts.records import Question, Record


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("高血压，有哪些 症状？", "高血压有哪些症状?"),
        ("ＣＴ检查", "ct 检查"),
        ("**What** is `C`?", "what is c"),
        ("★ 头痛 🙏", "头痛"),
        ("$x + 1$", "x+1"),
        ("STRASSE", "straße"),
    ],
)
def test_form_does_not_hide_one_question(left, right):
    assert normalise(left) == normalise(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("体温>38", "体温<38"),
        ("体温>38", "体温38"),
        ("C++", "C"),
        ("10^9", "109"),
        ("用C#写", "用C写"),
        ("कि", "की"),
    ],
)
def test_signs_and_marks_distinguish_questions(left, right):
    assert normalise(left) != normalise(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("每次2.5mg", "每次25mg"),
        ("温度-5度", "温度5度"),
        ("温度 −5 度", "温度5度"),
        ("一次1-2片", "一次12片"),
        ("一次1～2片", "一次12片"),
        ("血压120/80", "血压12080"),
        ("稀释1：200", "稀释1200"),
        ("0.1%", "0.1"),
        (".5 mg", "5 mg"),
        ("浓度10⁻⁷", "浓度10⁷"),
        ("x = 10²", "x = 102"),
        ("½片", "12片"),
        ("1½片", "11/2片"),
        ("①5mg", "15mg"),
        ("⒈5mg", "1.5mg"),
        ("第1、2天", "第12天"),
        ("5 10", "510"),
        ("1e-5", "1e5"),
        ("阳性(-)", "阳性"),
        ("阳性(-)", "阳性(+)"),
        ("٣٫٥", "٣٥"),
        ("0,250", "0250"),
        ("血型 A-", "血型 A"),
        ("e^{-x}", "e^{x}"),
        ("x != 5", "x = 5"),
    ],
)
def test_what_makes_a_number_is_kept(left, right):
    assert normalise(left) != normalise(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1,000 人", "1000人"),
        ("1\u00a0000 人", "1000人"),
        ("−5", "-5"),
        ("２．５ｍｇ", "2.5mg"),
        ("5-10", "5～10"),
        ("Covid-19", "covid 19"),
        ("½", "1/2"),
        ("10⁻⁷", "10^-7"),
    ],
)
def test_ways_to_write_one_number_do_not_hide_one_question(left, right):
    assert normalise(left) == normalise(right)


NUMBERISH = st.text(alphabet="0123456789.,:;/+-−–—~％% e^²⁻½①（）()、。，a度·\n", max_size=12)


@given(NUMBERISH | st.text(max_size=20))
@example("A\u00a8")
def test_normalising_again_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)


@given(
    st.integers(0, 999),
    st.text(alphabet=" .,:;/-~、。（）*_'\"", min_size=1, max_size=3),
    st.data(),
)
def test_two_numbers_never_become_one(first, between, data):
    second = data.draw(st.integers(0, 99))  # of three digits, a comma would group them
    assert normalise(f"{first}{between}{second}") != normalise(f"{first}{second}")


def ask(text, **fields):
    return Question("q", "recall", text, ("x",), "single", **fields)


def record(text, *, id="r", group="g", **fields):
    return Record(id, text, "x", group, "s", **fields)


@pytest.mark.parametrize(
    ("item", "held_out"),
    [
        (record("头痛怎么办？"), ask("头痛怎么办")),
        (record("头痛怎么办？", history=("你好", "您好")), ask("头痛怎么办")),
        (record("甲", group="same"), ask("乙", group="same")),
        (record("甲", images=("images/1.png",)), ask("乙", images=("/corpus/images/1.png",))),
        (record("头痛怎么办？"), record("头痛怎么办", id="v", group="h")),
        (ask("头痛怎么办？"), ask("头痛怎么办")),
        (ask("头痛怎么办？"), record("头痛怎么办", history=("你好", "您好"))),
        (record("谢谢", history=("头痛", "休息")), ask("谢谢", history=("头痛", "休息"))),
    ],
)
def test_what_is_shared_is_refused_with_its_line(item, held_out):
    assert LeakIndex([held_out]).find(item)
    with pytest.raises(LeakError, match="share") as caught:
        check_leaks([record("别的", group="other"), item], held_out=[held_out], path="train.jsonl")
    assert caught.value.line == 2


def test_what_differs_is_counted():
    items = [
        record("", id="a", group="1"),
        record("谢谢", id="b", group="2", history=("头痛", "休息")),
        record("是什么？", id="c", group="3", images=("images/1.png",)),
    ]
    others = [
        record("", id="d", group="4"),
        record("谢谢", id="e", group="5", history=("发热", "喝水")),
        ask("是什么？", images=("images/2.png",)),
        ask("谢谢", history=("咳嗽", "多喝水"), group="6"),
    ]
    assert check_leaks(items, held_out=others) == 3
