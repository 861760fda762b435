"""Familiarity: the share of a question that training questions hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.familiarity import FAMILIAR, Familiarity, split_ngrams

QUESTIONS = ["高血压有哪些常见症状？", "Which tax form do I need for a rented flat?"]


def test_a_training_question_is_wholly_familiar():
    familiarity = Familiarity.of(QUESTIONS)
    assert [familiarity.ratio(question, unseen_ngrams=0) for question in QUESTIONS] == [1.0, 1.0]
    assert (
        familiarity.ratio("  WHICH tax form do I need for a rented flat? ", unseen_ngrams=0) == 1.0
    )
    assert familiarity.ratio("高血压有哪些症状？", unseen_ngrams=0) > 0.8


@pytest.mark.parametrize(
    "question",
    ["今天天气怎么样", "def f(x): return x", "Wie spät ist es?", "", "？？", "👍👍"],
)
def test_what_is_foreign_is_not(question):
    assert Familiarity.of(QUESTIONS).ratio(question, unseen_ngrams=0) < 0.5


@pytest.mark.parametrize("mark", ["？", "?", "。", "！", "...", "……", "??", " ", "？ "])
@pytest.mark.parametrize(
    "question", ["今天天气怎么样", "高血压有哪些症状", "Which tax form do I need"]
)
def test_closing_marks_do_not_count(question, mark):
    assert split_ngrams(question + mark) == split_ngrams(question)


def test_the_longer_of_two_half_known_questions_is_more_familiar():
    familiarity = Familiarity.of(["高血压的症状", "头痛的原因"])
    short, long = "血压今", "高血压的症状我的那么样个"
    assert familiarity.ratio(short, unseen_ngrams=0) == 0.5
    assert familiarity.ratio(long, unseen_ngrams=0) < 0.5
    assert familiarity.ratio(long, unseen_ngrams=16) > familiarity.ratio(short, unseen_ngrams=16)


def test_text_with_and_without_spaces_is_cut_by_its_own_measure():
    assert split_ngrams("头痛 rash") == ["头痛", " rash", "rash "]
    assert split_ngrams("ก็ได้")[0] == "ก็"
    assert split_ngrams("2024") == split_ngrams("1999")
    assert split_ngrams("") == [""]


@given(st.text(max_size=200))
def test_any_text_has_a_share(text):
    assert Familiarity.of([text]).ratio(text, unseen_ngrams=0) == 1.0
    assert 0 <= Familiarity.of(QUESTIONS).ratio(text, unseen_ngrams=0) <= 1


def test_half_a_surrogate_pair_is_a_character_like_any_other():
    assert Familiarity.of(["?\ud800?"]).ratio("?\ud800?", unseen_ngrams=0) == 1.0


def test_the_most_frequent_are_kept(monkeypatch, tmp_path):
    monkeypatch.setattr("limbeck.contracts.familiarity.MAX_NGRAMS", 3)
    familiarity = Familiarity.of(["甲乙丙丁", "甲乙丙丁", "戊己"])
    assert familiarity.ratio("甲乙丙丁", unseen_ngrams=0) == 1.0
    assert familiarity.ratio("戊己", unseen_ngrams=0) == 0.0
    familiarity.write(tmp_path)
    assert Familiarity.read(tmp_path).ratio("甲乙丙丁", unseen_ngrams=0) == 1.0


def test_a_damaged_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=FAMILIAR):
        Familiarity.read(tmp_path)
    (tmp_path / FAMILIAR).write_bytes(b"\x93NUMPY")
    with pytest.raises(CheckpointError, match=FAMILIAR):
        Familiarity.read(tmp_path)
    np.save(tmp_path / FAMILIAR, np.zeros((2, 2)))
    with pytest.raises(CheckpointError, match="float64"):
        Familiarity.read(tmp_path)
