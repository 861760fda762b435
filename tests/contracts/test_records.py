"""Records and questions survive the way to disk and back."""

import json

import pytest

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import (
    Entity,
    Question,
    Record,
    read_jsonl,
    read_records,
    write_jsonl,
)

RECORDS = [
    Record("1", "高血压看什么科？", "心血管内科", "g", "pack"),
    Record(
        id="2",
        question="要紧吗",
        answer="line one\nline\u2028two\x85three",
        group="h",
        source="file",
        specialty="cardiology",
        confidence=0.91,
        history=("你好", "您好"),
        entities=(Entity("高血压", "disease", 0, "question"),),
        images=("x.png",),
        place="a.jsonl:3",
    ),
]
QUESTIONS = [
    Question("1", "recall", "症状？", ("头晕", "心悸"), "list"),
    Question(
        "2", "choice", "哪科？", ("骨科",), "choice", ("骨科", "儿科"), "ortho", "g", ("x.png",)
    ),
]


@pytest.mark.parametrize(("kind", "items"), [(Record, RECORDS), (Question, QUESTIONS)])
def test_round_trip(tmp_path, kind, items):
    path = tmp_path / "items.jsonl"
    assert write_jsonl(path, items) == len(items)
    assert [kind.from_json(value) for value in read_jsonl(path)] == items
    assert len(path.read_bytes().splitlines()) == len(items)


def test_text_stays_readable_and_keys_are_sorted(tmp_path):
    path = tmp_path / "items.jsonl"
    write_jsonl(path, [{"b": "高血压", "a": 1}])
    assert path.read_text(encoding="utf-8") == '{"a": 1, "b": "高血压"}\n'


@pytest.mark.parametrize("line", ["{", "[]", "3", '"text"', "", "null"])
def test_broken_line_is_named(tmp_path, line):
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"a": 1}) + "\n" + line + "\n")
    with pytest.raises(DataError, match=r"items\.jsonl:2: "):
        list(read_jsonl(path))


def test_undecodable_file_is_named(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(DataError, match=r"items\.jsonl"):
        list(read_jsonl(path))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.jsonl: file is missing"):
        list(read_jsonl(tmp_path / "absent.jsonl"))


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"id": "1"},
        {"id": "1", "colour": "red"},
        {**vars(RECORDS[0]), "history": 3},
        {**vars(RECORDS[0]), "entities": ["x"]},
        {**vars(RECORDS[0]), "question": 3},
    ],
)
def test_what_is_no_record_is_refused(tmp_path, value):
    path = tmp_path / "items.jsonl"
    write_jsonl(path, [RECORDS[0], value])
    with pytest.raises(DataError, match=r"items\.jsonl:2: not a record"):
        list(read_records(path))


@pytest.mark.parametrize(
    "change", [{"answers": "one"}, {"answers": [1]}, {"form": 3}, {"options": {}}, {"more": 1}]
)
def test_what_is_no_question_is_refused(change):
    with pytest.raises(TypeError):
        Question.from_json(vars(QUESTIONS[0]) | change)
