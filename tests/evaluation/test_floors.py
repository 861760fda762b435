"""Floors: answers from the training records alone, equal on every run."""

import dataclasses

import pytest

from limbeck.contracts.records import Question, Record
from limbeck.evaluation import floors
from limbeck.evaluation.floors import FLOORS, make_floors, nearest


def record(place, question, answer, **fields):
    return Record(f"r{place}", question, answer, f"g{place}", "s", **fields)


TRAINING = [
    record(0, "头痛去哪个科", "神经内科"),
    record(1, "头晕去哪个科", "神经内科"),
    record(2, "咳嗽去哪个科", "呼吸内科"),
    record(3, "气喘去哪个科", "呼吸内科"),
    record(4, "牙痛去哪个科", "口腔科"),
    record(5, "感冒吃什么药", "多喝水，注意休息"),
    record(6, "", "没有问题的文本。"),
    record(7, "这张图有什么", "肺炎", images=("images/1.png",)),
    record(8, "这张图有什么呢", "肺炎", images=("images/2.png",)),
    record(9, "图上有什么", "正常", images=("images/3.png",)),
]
DEPARTMENTS = ("神经内科", "呼吸内科", "口腔科", "皮肤科")
QUESTIONS = (
    Question("t1", "triage", "咳嗽该去哪个科", ("呼吸内科",), "single", DEPARTMENTS),
    Question("t2", "triage", "牙痛了，去哪个科呢", ("口腔科",), "single", DEPARTMENTS),
    Question("f1", "free", "感冒了吃什么药", ("多喝水，注意休息",), "single"),
    Question("c1", "choice", "头晕该去哪", ("神经内科",), "choice", DEPARTMENTS),
    Question("i1", "finding", "图？", ("正常",), "single", ("肺炎", "正常"), images=("/a.png",)),
)


def make(questions=QUESTIONS, records=TRAINING, names=FLOORS):
    return {
        floor.name: floor
        for floor in make_floors(lambda: records, questions=questions, names=names)
    }


def answers(floor):
    return {item.id: item.answer for item in floor.answered}


def test_the_majority_is_the_most_frequent_answer_of_the_task():
    # Over all text records two departments are equally frequent: the first one counts.
    assert answers(make()["majority"]) == {
        "t1": "神经内科",
        "t2": "神经内科",
        "f1": "神经内科",
        "c1": "神经内科",
        "i1": "肺炎",
    }


def test_a_majority_among_options_counts_only_them():
    question = dataclasses.replace(
        QUESTIONS[3], options=("口腔科", "呼吸内科"), answers=("口腔科",)
    )
    assert answers(make((question,))["majority"]) == {"c1": "呼吸内科"}


def test_looking_up_copies_the_answer_of_the_most_similar_question():
    found = make()["lookup"]
    assert answers(found) == {
        "t1": "呼吸内科",
        "t2": "口腔科",
        "f1": "多喝水，注意休息",
        "c1": "神经内科",
    }
    assert all(item.correct for item in found.answered)
    assert found.missing == {"finding": "the question is an image"}


def test_a_choice_without_a_known_option_is_the_one_most_like_the_copied_answer():
    options = ("胃镜", "要多喝热水并注意休息")
    question = Question("c", "choice", "感冒吃什么药好", options[1:], "choice", options)
    assert answers(make((question,))["lookup"]) == {"c": options[1]}
    assert nearest("甲", options=("乙", "丙")) == "乙"


def test_earlier_turns_are_part_of_a_question():
    training = [
        record(0, "怎么办", "多休息", history=("头痛", "多久了？")),
        record(1, "怎么办", "多喝水", history=("咳嗽", "多久了？")),
    ]
    question = Question("h", "free", "怎么办", ("多喝水",), "single", history=("咳嗽了", "多久？"))
    assert answers(make((question,), training)["lookup"]) == {"h": "多喝水"}


def test_a_linear_classifier_needs_few_answers_and_more_than_one(monkeypatch):
    found = make()["linear"]
    assert answers(found)["t1"] == "呼吸内科" and answers(found)["t2"] == "口腔科"
    monkeypatch.setattr(floors, "MAX_LINEAR_ANSWERS", 3)
    assert make()["linear"].missing["free"] == "too many different answers"
    assert "triage" not in make()["linear"].missing
    one = make(QUESTIONS[2:3], TRAINING[5:6])["linear"]
    assert one.missing == {"free": "one answer only"} and not one.answered


def test_a_corpus_without_training_questions_has_floors_that_say_so():
    for floor in make(records=TRAINING[6:7]).values():
        assert not floor.answered
        assert set(floor.missing.values()) == {"no training record of this kind"}
        assert set(floor.missing) == {"triage", "free", "choice", "finding"}


@pytest.mark.parametrize("name", FLOORS)
def test_a_floor_is_the_same_on_every_run_and_alone(name):
    assert make()[name] == make(names=(name,))[name]


def test_large_corpora_are_drawn_by_id(monkeypatch):
    monkeypatch.setattr(floors, "MAX_RECORDS", 3)
    monkeypatch.setattr(floors, "MAX_LINEAR_RECORDS", 2)
    first = make()
    assert make(records=TRAINING[::-1])["majority"].answered[0].answer in DEPARTMENTS
    assert first == make()
    kept = floors._draw(TRAINING)
    assert len(kept) == 3
    assert {item.id for item in floors._draw(TRAINING[::-1])} == {item.id for item in kept}


def test_verdicts_on_floors_are_those_on_models():
    found = make()["majority"]
    assert [item.correct for item in found.answered] == [False, False, False, True, False]
    assert make(names=()) == {}
