"""Which questions a teacher is asked."""

import numpy as np
import pytest

from limbeck.contracts.config import resolve
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Record
from limbeck.contracts.registry import QUESTION_CHOICES
from limbeck.distillation.question_choice import selection

DISEASES = ("感冒", "高血压", "糖尿病", "胃炎", "湿疹", "哮喘")
FORMS = {
    "病因": ("{}是什么原因引起的", "{}的病因有哪些", "为什么会得{}"),
    "治疗": ("{}怎么治疗好", "{}吃什么药", "得了{}怎么治"),
}


def question(text, answer=""):
    return Record(text, text, answer, text, "test")


LABELLED = [
    question(form.format(disease), label)
    for label, forms in FORMS.items()
    for form in forms
    for disease in DISEASES[:3]
]
SIMILAR = [question(f"{disease}的病因有哪些呢") for disease in DISEASES]
STRANGE = [question("今天天气好不好"), question("附近哪里有停车场")]
ASKED = [*SIMILAR, *STRANGE, *(question(f"{disease}吃什么药呢") for disease in DISEASES)]


def choose(kind, questions, *, max_questions, margins=None, **settings):
    config = resolve(QUESTION_CHOICES, kind, what="choice").model_validate(
        {"kind": kind, "max_questions": max_questions, **settings}
    )
    return config.choose(questions, measure_margins=lambda: margins)


@pytest.mark.parametrize("kind", ["random", "diverse", "uncertain"])
def test_so_many_are_chosen_and_the_same_each_time(kind):
    margins = np.linspace(0, 1, len(ASKED))
    for count in (1, 4, len(ASKED) - 1):
        found = choose(kind, ASKED, max_questions=count, margins=margins)
        assert len(set(found)) == count and found == sorted(found)
        assert found == choose(kind, ASKED, max_questions=count, margins=margins)
    for count in (len(ASKED), 99):
        assert choose(kind, ASKED, max_questions=count) == list(range(len(ASKED)))


def test_a_larger_limit_adds_to_a_random_choice():
    small, large = (choose("random", ASKED, max_questions=count) for count in (4, 8))
    assert set(small) < set(large)
    more = [*ASKED, *(question(f"第{number}个问题") for number in range(5))]
    assert set(choose("random", more, max_questions=12)) - set(range(len(ASKED))) != set()
    assert choose("random", ASKED, max_questions=4, seed=1) != small


def test_each_group_has_one_question():
    groups = [range(6), range(6, 8), range(8, 14)]
    found = choose("diverse", [*SIMILAR, *[STRANGE[0]] * 2, *ASKED[8:]], max_questions=3)
    assert [sum(place in group for place in found) for group in groups] == [1, 1, 1]


def test_equal_questions_are_filled_up():
    assert len(set(choose("diverse", [SIMILAR[0]] * 9, max_questions=4))) == 4


def test_the_middle_of_a_cluster_is_nearest_to_its_centre():
    vectors = np.array([[0.0, 0], [1, 0], [2, 0], [10, 0], [10, 3], [10, 5]])
    assert sorted(selection.nearest_to_centres(vectors, num_clusters=2, seed=0)) == [1, 4]


def test_the_least_sure_questions_are_candidates():
    margins = np.array([0.1] * 6 + [9.0] * 2 + [0.2] * 6)
    found = choose("uncertain", ASKED, max_questions=2, margins=margins)
    assert set(found) <= set(range(6))
    least = choose(
        "uncertain", ASKED, max_questions=3, margins=margins[::-1], candidates_per_question=1
    )
    assert least == [8, 9, 10]


def test_a_linear_model_is_least_sure_of_what_its_labels_do_not_know():
    found = selection.linear_margins(ASKED, labelled=LABELLED)
    assert found.shape == (len(ASKED),) and (found >= 0).all()
    assert found[6:8].max() < np.delete(found, [6, 7]).min()


def test_margins_of_several_labels_are_differences():
    labelled = [*LABELLED, *(question(f"{disease}挂什么科", "科室") for disease in DISEASES)]
    found = selection.linear_margins([labelled[0], STRANGE[0]], labelled=labelled)
    assert found[0] > found[1] >= 0


@pytest.mark.parametrize("answers", [["同"] * 9, [f"答{number}" for number in range(201)]])
def test_without_labels_there_is_no_linear_model(answers):
    labelled = [question(f"问{number}", answer) for number, answer in enumerate(answers)]
    with pytest.raises(DataError, match="make no classifier"):
        selection.linear_margins(ASKED, labelled=labelled)


def test_too_many_clusters_are_refused(monkeypatch):
    monkeypatch.setattr(selection, "MAX_DISTANCES", 20)
    with pytest.raises(DataError, match="take too long"):
        choose("diverse", ASKED, max_questions=3)
