"""Multiple-choice questions, in each of the forms in which data sets hold their options."""

import pytest
from pydantic import ValidationError

from tests.support.source_reading import read_rows, read_source

ASKED = "q\nA. x\nB. y"


@pytest.mark.parametrize(
    ("row", "columns", "answer"),
    [
        ({"A": "x", "B": "y", "C": "", "answer": "B"}, {"options": ["A", "B", "C"]}, "B"),
        ({"choices": ["x", "y"], "answer": 1}, {"option_numbers": "from_0"}, "B"),
        ({"choices": ["x", "y"], "answer": "1"}, {"option_numbers": "from_1"}, "A"),
        ({"choices": {"A": "x", "B": "y", "C": None}, "answer": "y"}, {}, "y"),
        ({"choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answer": "A"}, {}, "A"),
        ({"choices": [{"key": "A", "value": "x"}, {"key": "B", "value": "y"}]}, {}, "A"),
        ({"choices": "A x\nB、y\n", "answer": "AB"}, {}, "AB"),
        ({"choices": "a ) x , b ) y", "answer": "b"}, {}, "B"),
        ({"choices": "A.x；B.y", "answer": "B"}, {}, "B"),
        ({"choices": '["x", "y"]', "answer": "A, B"}, {}, "A, B"),
        ({"choices": ["x", "y"], "answer": "B. y"}, {}, "B. y"),
        ({"choices": ["x", "y"], "answer": "b"}, {}, "B"),
        ({"choices": ["x", "y"], "answer": "(B)"}, {}, "B"),
        ({"choices": ["x", "y"], "answer": 1.0}, {"option_numbers": "from_0"}, "B"),
        ({"choices": ["A. x", "(B) y"], "answer": "B"}, {}, "B"),
        ({"choices": ["x", "y"], "question": "q\nA. x\nB. y"}, {}, "A"),
    ],
)
def test_options_stand_below_the_question(tmp_path, row, columns, answer):
    row = {"question": "q", "answer": "A", **row}
    found = read_rows(tmp_path, row, columns={"options": ["choices"], **columns})
    assert found.pairs == [(ASKED, answer)] and "columns_not_read" not in found.notes


def test_letters_inside_options_are_no_labels(tmp_path):
    row = {"question": "q", "answer": "A", "o": "A. vitamin A. of\nU.S. b) origin\nB. e. g. y"}
    (record,) = read_rows(tmp_path, row, columns={"options": ["o"]}).records
    assert record.question == "q\nA. vitamin A. of\nU.S. b) origin\nB. e. g. y"


def test_a_text_of_one_letter_is_no_label_in_small(tmp_path):
    row = {"question": "q", "o": ["c", "a", "b"], "answer": "a"}
    assert read_rows(tmp_path, row, columns={"options": ["o"]}).pairs[0][1] == "a"


def test_labels_may_be_numbers(tmp_path):
    row = {"question": "q", "answer": 2, "o": {"text": ["x", "y"], "label": ["1", "2"]}}
    assert read_rows(tmp_path, row, columns={"options": ["o"]}).pairs == [("q\n1. x\n2. y", "2")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"o": ["x", "y"], "answer": "C"}, "not_an_option"),
        ({"o": ["0", "1"], "answer": 1}, "not_an_option"),
        ({"o": ["x"], "answer": "A"}, "options_not_read"),
        ({"o": {"text": ["x", None], "label": ["A", "B"]}, "answer": "A"}, "options_not_read"),
        ({"o": ["x", ["y"]], "answer": "A"}, "wrong_type"),
        ({"o": "x or y", "answer": "A"}, "options_not_read"),
        ({"o": 3, "answer": "A"}, "options_not_read"),
    ],
)
def test_what_is_no_option_is_dropped(tmp_path, row, reason):
    fine = {"question": "q", "o": ["x", "y"], "answer": "A"}
    found = read_rows(tmp_path, fine, {"question": "r", **row}, columns={"options": ["o"]})
    assert found.reasons == [("2", reason)]


def test_a_number_beyond_the_options_is_none(tmp_path):
    (tmp_path / "a.csv").write_text("question,a,b,answer\nq,x,y,1\nr,x,y,2\n")
    columns = {"options": ["a", "b"], "option_numbers": "from_0"}
    found = read_source("csv", path=tmp_path / "a.csv", columns=columns)
    assert [record.answer for record in found.records] == ["B"]
    assert found.reasons == [("3", "not_an_option")]


def test_numbers_need_options(tmp_path):
    with pytest.raises(ValidationError, match="`options` names none"):
        read_rows(tmp_path, {"question": "q"}, columns={"option_numbers": "from_0"})
