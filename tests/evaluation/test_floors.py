"""Floors: answers from the training records alone, equal on every run."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limbeck.contracts.records import Entity, Question, Record
from limbeck.contracts.registry import FLOORS
from limbeck.evaluation import floors
from limbeck.evaluation.floors import make_floors, methods, text_pool
from limbeck.evaluation.floors.named_entities import EntityIndex
from limbeck.evaluation.floors.text_pool import nearest
from limbeck.evaluation.roc_auc import measure_findings


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
    Question("i1", "finding", "图？", ("正常",), "single", ("肺炎", "正常"), images=("a.png",)),
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where images lie: bright ones show something, dark ones do not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for name, grey in (("images/1", 200), ("images/2", 220), ("images/3", 20), ("a", 30)):
        Image.fromarray(np.full((40, 30), grey, np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def make(questions=QUESTIONS, records=TRAINING, names=tuple(FLOORS)):
    return {
        floor.name: floor
        for floor in make_floors(lambda: records, folder=Path(), questions=questions, names=names)
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
    monkeypatch.setattr(methods, "MAX_LINEAR_ANSWERS", 3)
    assert make()["linear"].missing["free"] == "too many different answers"
    assert "triage" not in make()["linear"].missing
    one = make(QUESTIONS[2:3], TRAINING[5:6])["linear"]
    assert one.missing == {"free": "one answer only"} and not one.answered


def test_a_corpus_without_training_questions_has_floors_that_report_it():
    for floor in make(records=TRAINING[6:7]).values():
        assert not floor.answered
        assert set(floor.missing.values()) == {"no training record of this kind"}
        assert set(floor.missing) == {"triage", "free", "choice", "finding"}


@pytest.mark.parametrize("name", FLOORS)
def test_a_floor_is_the_same_on_every_run_and_alone(name):
    records = [*TRAINING, MARKED[0]]
    assert make(records=records)[name] == make(names=(name,), records=records)[name]


def marked(place, question, answer, *names):
    entities = tuple(Entity(name, "disease", question.index(name), "question") for name in names)
    return record(place, question, answer, entities=entities)


MARKED = [
    marked(20, "胃炎有哪些症状", "胃痛", "胃炎"),
    marked(21, "胃炎要做什么检查", "胃镜", "胃炎"),
    marked(22, "肺炎有哪些症状", "咳嗽", "肺炎"),
    marked(23, "肺炎要做什么检查", "拍片", "肺炎"),
    marked(24, "肺炎和胃炎一起得了有哪些症状", "都有", "肺炎", "胃炎"),
]


def test_names_are_compared_first_and_what_is_left_second():
    """Nearest by n-grams is a question about something else: the name decides."""
    asked = "胃炎的人去了医院要做什么检查呢"
    rest = [marked(30, "鼻炎的人去了医院要做什么检查呢", "鼻镜", "鼻炎")]
    question = Question("e", "recall", asked, ("胃镜",), "single")
    found = make((question,), [*MARKED, *rest])
    assert answers(found["lookup"]) == {"e": "鼻镜"}
    assert answers(found["entity_lookup"]) == {"e": "胃镜"}
    both = Question("b", "recall", "肺炎，胃炎，什么检查", ("都有",), "single")
    assert answers(make((both,), MARKED)["entity_lookup"]) == {"b": "都有"}
    none = Question("n", "recall", "有哪些症状", ("胃痛",), "single")
    assert answers(make((none,), MARKED)["entity_lookup"]) == {"n": "胃痛"}


def test_an_unknown_name_beside_a_known_one_makes_another_question():
    records = [
        marked(0, "胃炎怎么办", "甲", "胃炎"),
        marked(1, "胃炎、肺炎怎么办", "乙", "胃炎", "肺炎"),
    ]
    question = Question("q", "recall", "肺炎，胃炎！怎么办", ("乙",), "single")
    assert answers(make((question,), records)["entity_lookup"]) == {"q": "乙"}


def test_the_longest_name_counts():
    index = EntityIndex([marked(0, "糖尿病视网膜病变", "x", "糖尿病视网膜病变"), MARKED[0]])
    assert index.split("糖尿病视网膜病变和胃炎") == (["糖尿病视网膜病变", "胃炎"], "和")
    assert index.split("没有") == ([], "没有")


def test_without_marked_names_there_is_no_lookup_by_them():
    assert set(make()) == {"majority", "lookup", "linear"}
    assert "entity_lookup" in make(records=[*TRAINING, MARKED[0]])


def test_images_are_distinguished_by_their_pixels():
    found = make()["linear"]
    (answered,) = [item for item in found.answered if item.task == "finding"]
    assert answered.answer == "正常" and answered.correct
    assert len(answered.option_scores) == 2
    assert answered.option_scores[1] > answered.option_scores[0]
    assert sum(np.exp(answered.option_scores)) == pytest.approx(1)
    assert make()["lookup"].missing["finding"] == "the question is an image"


def test_pixels_have_an_area_under_the_curve(folder):
    bright = dataclasses.replace(
        QUESTIONS[4], id="i2", answers=("肺炎",), images=("images/2.png",), group="i2"
    )
    found = measure_findings(make((QUESTIONS[4], bright))["linear"].answered)
    assert found["finding"].auc.value == 1


def test_several_images_are_refused_by_name():
    two = dataclasses.replace(QUESTIONS[4], images=("a.png", "images/1.png"))
    assert make((two,))["linear"].missing == {"finding": "several images in one question"}


def test_colour_is_used_where_there_is_some(folder):
    """Of the same brightness: only the hue tells them apart."""
    for name, colour in (("1", (90, 0, 0)), ("2", (90, 0, 0)), ("3", (0, 0, 236))):
        image = Image.fromarray(np.full((8, 8, 3), colour, np.uint8))
        image.save(folder / "images" / f"{name}.png")
    Image.fromarray(np.full((8, 8, 3), (0, 0, 236), np.uint8)).save(folder / "a.png")
    assert make(QUESTIONS[4:])["linear"].answered[0].answer == "正常"


def test_large_corpora_are_drawn_by_id(monkeypatch):
    monkeypatch.setattr(floors, "MAX_RECORDS", 3)
    monkeypatch.setattr(text_pool, "MAX_LINEAR_RECORDS", 2)
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
