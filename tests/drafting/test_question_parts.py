"""Which columns `limbeck new` takes for a question's options and for the text that it is about."""

import json

import pytest

from limbeck.contracts.errors import DataError
from limbeck.data.readers.column_names import guess_columns
from limbeck.data.readers.row_shapes import Columns
from limbeck.drafting.findings import read_findings
from limbeck.drafting.question_parts import find_parts
from limbeck.drafting.sources import open_source


def find(folder, rows, **columns):
    """The columns that are drafted for some rows, and the first record's question and answer."""
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {"kind": "jsonl", "name": "a", "path": str(path)}
    source |= {"columns": columns} if columns else {}
    source, findings, _ = find_parts(source, read_findings(open_source(source)), with_context=True)
    record = findings.records[0]
    return source.get("columns", {}), (record.question, record.answer)


def make_rows(**parts):
    return [
        {"question": f"q{number}", "answer": number % 4, **parts, "id": number}
        for number in range(8)
    ]


def test_numbers_of_options_are_counted_as_the_whole_file_shows(tmp_path):
    rows = make_rows(choices=["w", "x", "y", "z"])
    options = {"options": ["choices"], "option_numbers": "from_0"}
    assert find(tmp_path, rows) == (options, ("q0\nA. w\nB. x\nC. y\nD. z", "A"))
    from_1 = [{**row, "answer": row["answer"] + 1} for row in rows]
    assert find(tmp_path, from_1)[0] == {**options, "option_numbers": "from_1"}
    with pytest.raises(DataError, match="may count them from 0 or from 1"):
        find(tmp_path, [row for row in rows if row["answer"] in (1, 2)])


def test_options_in_columns_of_their_own(tmp_path):
    rows = [{**row, "answer": "AB"[row["answer"] % 2]} for row in make_rows(opa="x", opb="y")]
    assert find(tmp_path, rows) == ({"options": ["opa", "opb"]}, ("q0\nA. x\nB. y", "A"))


def test_options_inside_the_questions_object(tmp_path):
    choices = [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}]
    rows = [{"question": {"stem": f"q{n}", "choices": choices}, "key": "B"} for n in range(3)]
    columns, pair = find(tmp_path, rows, question=["question.stem"], answer="key")
    assert columns["options"] == ["question.choices"] and pair == ("q0\nA. x\nB. y", "B")


def test_a_text_that_the_question_is_about(tmp_path):
    rows = [{"query": "q", "reply": "a", "context": text, "x": 1} for text in ("", "c")]
    columns, _ = find(tmp_path, rows, question=["query"], answer="reply")
    assert columns == {"question": ["context", "query"], "answer": "reply"}
    rows = [{"instruction": "q", "Input": "c", "reply": "a"}]
    columns, _ = find(tmp_path, rows, question=["instruction"], answer="reply")
    assert columns["question"] == ["instruction", "Input"]


@pytest.mark.parametrize(
    ("names", "question", "answer"),
    [
        (["problem", "level", "solution"], "problem", "solution"),
        (["original_question", "query", "response"], "query", "response"),
        (["question_id", "question_text", "answer_text"], "question_text", "answer_text"),
        (["Qestion", "text", "Answers"], "Qestion", "Answers"),
        (["context", "question", "answerA", "answerB", "answerC", "label"], "question", "label"),
    ],
)
def test_likely_columns(names, question, answer):
    assert guess_columns(names, Columns()) == ([question], answer)


@pytest.mark.parametrize(
    "parts",
    [{"options": {"seed": 1, "lang": "de"}}, {"options": "none"}, {"context": [["t", ["s"]]]}],
)
def test_what_is_neither_is_left_alone(tmp_path, parts):
    assert find(tmp_path, make_rows(**parts)) == ({}, ("q0", "0"))
