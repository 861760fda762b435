"""`limbeck ask`: sure answers, unsure ones, emergencies, repetition."""

import math
import os
import subprocess
import sys

import pytest

from limbeck.cli import ask
from limbeck.contracts.answer_policy import AnswerPolicy, PolicyFile
from limbeck.contracts.answerer import Answerer, Size, as_prompt
from limbeck.contracts.familiarity import Familiarity
from tests.support import tiny_recipe
from tests.support.answer_policies import CONFIDENCE
from tests.support.medical_pack import medical_pack


@pytest.mark.parametrize("name", ["teacher", "student", "int8", "bundle"])
def test_ask(invoke, student, name):
    text = invoke("ask", student.parent / name, "高血压看什么科？", "--max-new-tokens", 3).stdout
    assert "not calibrated, probability of its tokens" in text
    deployed = name in ("int8", "bundle")
    wording = "no substitute for a doctor" if deployed else "for reference only"
    assert f"（机器生成，仅供参考 / machine-made, {wording}）" in text


def test_ask_in_an_emergency(invoke, student):
    question = "胸口剧痛出冷汗左胳膊发麻怎么办"
    text = invoke("ask", student.parent / "bundle", question, "--max-new-tokens", 3).stdout
    assert text.startswith("胸痛伴这些表现可能是心肌梗死，请立即拨打120")
    assert "a heart attack; call an ambulance" in text.splitlines()[0]
    calm = invoke("ask", student.parent / "bundle", "高血压看什么科？", "--max-new-tokens", 3)
    assert "120" not in calm.stdout


@pytest.mark.parametrize("question", ["", "  "])
def test_ask_nothing(invoke, student, question):
    assert "the question is empty" in invoke("ask", student, question, code=1).stderr


def test_ask_what_is_no_model(invoke, student, tmp_path):
    for folder in (tmp_path / "absent", tmp_path, student.parent / "corpus"):
        text = invoke("ask", folder, "头晕？", code=1).stderr
        assert "CheckpointError" in text
        assert str(folder) in text


class Sure(Answerer):
    """Says what it is told to, with the same probability for every piece."""

    def __init__(self, pieces, probability):
        self.pieces, self.probability = pieces, probability

    def answer(self, questions, *, max_new_tokens):
        raise NotImplementedError

    def sample(self, prompts, *, seeds, temperature, max_new_tokens):
        raise NotImplementedError

    def score(self, question, options):
        raise NotImplementedError

    def stream(self, question, *, max_new_tokens):
        for piece in self.pieces:
            yield piece, math.log(max(self.probability, 1e-300))

    def count_answer_tokens(self, answer):
        raise NotImplementedError

    def size(self):
        return Size(1, 1, 1)

    def num_threads(self):
        return 1


CALIBRATED = AnswerPolicy(PolicyFile(confidence=CONFIDENCE), Familiarity.of(["症状？"]))


@pytest.fixture
def printed(capsys):
    def ask_for(answerer, **options):
        ask.print_answer(answerer, as_prompt("症状？"), max_new_tokens=99, **options)
        return capsys.readouterr().out

    return ask_for


NOTE = "（机器生成，仅供参考 / machine-made, for reference only）\n"


def test_a_sure_answer_stands_alone(printed):
    assert printed(Sure(["头晕", "、心悸"], 0.9), policy=CALIBRATED) == "头晕、心悸\n" + NOTE


@pytest.mark.parametrize("answerer", [Sure(["也许"], 0.2), Sure([], 1.0), Sure(["也许"], 0.0)])
def test_an_unsure_answer_is_not_shown(printed, answerer):
    text = printed(answerer, policy=CALIBRATED)
    assert "也许" not in text
    assert text.startswith("不知道（把握 ")
    assert "below 40%; --show-unsure prints the draft" in text
    shown = printed(answerer, policy=CALIBRATED, show_unsure=True)
    assert shown.startswith("".join(answerer.pieces) + "\n不知道以上是否正确：把握 ")


def test_a_question_of_another_kind_is_not_answered(capsys):
    sure = Sure(["头晕"], 1.0)
    ask.print_answer(sure, as_prompt("今天天气"), policy=CALIBRATED, max_new_tokens=9)
    text = capsys.readouterr().out
    assert "头晕" not in text
    assert "the question is unlike those that it was trained on" in text


def test_repetition_is_stopped_and_not_shown(printed):
    lost = Sure(["鼻"] * 90, 1.0)
    text = printed(lost, policy=CALIBRATED)
    assert "鼻" not in text
    assert "I do not know (the draft repeats itself" in text
    shown = printed(lost, policy=AnswerPolicy())
    assert 0 < shown.count("鼻") <= 45
    assert "不知道以上是否正确：草稿不断重复" in shown
    assert "--show-unsure" not in shown


def test_a_reader_that_stops_reading_causes_no_noise(student):
    done = subprocess.run(
        f"{sys.executable} -m limbeck.cli show {student} | true",
        shell=True,
        cwd=tiny_recipe.ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert done.stderr == ""


MEDICAL = AnswerPolicy(PolicyFile(safety=medical_pack().safety))


@pytest.mark.parametrize(
    ("question", "said"),
    [("布洛芬一次吃几片？", "我不给药物剂量"), ("how much ibuprofen can I take", "no doses")],
)
def test_what_the_rules_refuse_is_not_asked(capsys, question, said):
    class Never(Sure):
        def stream(self, prompt, *, max_new_tokens):
            raise AssertionError("the model was asked")

    ask.print_answer(Never([], 1.0), as_prompt(question), policy=MEDICAL, max_new_tokens=9)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("show_unsure", [False, True])
def test_an_answer_that_the_rules_hold_back_is_not_shown(capsys, show_unsure):
    answerer = Sure(["每次", "口服 400", "mg，每日三次"], 0.99)
    ask.print_answer(
        answerer,
        as_prompt("头痛怎么办？"),
        policy=MEDICAL,
        max_new_tokens=9,
        show_unsure=show_unsure,
    )
    printed = capsys.readouterr().out
    assert "回答含药物剂量，已隐去" in printed and "400" not in printed


def test_an_answer_without_a_fault_is_shown_whole(capsys):
    answerer = Sure(["多喝水", "，早点休息"], 0.99)
    ask.print_answer(answerer, as_prompt("感冒怎么办？"), policy=MEDICAL, max_new_tokens=9)
    assert "多喝水，早点休息\n" in capsys.readouterr().out
