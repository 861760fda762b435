"""Answers that are lists or objects: read as JSON from every form in which files write them."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from limbeck.contracts.errors import DataError
from limbeck.evaluation.metrics import entity_f1
from tests.support.source_reading import read_source


def read_lists(path, **fields):
    found = read_source(fields.pop("kind", "jsonl"), path=path, answers="list", **fields)
    assert all(record.answer_form == "list" for record in found.records)
    return [record.answer for record in found.records], found


def write_lines(path, *rows):
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def test_values_of_json_become_its_text_with_their_numbers(tmp_path):
    path = write_lines(
        tmp_path / "a.jsonl",
        '{"question": "a", "answer": ["aspirin", "5 mg"]}',
        '{"question": "b", "answer": {"drug": "阿司匹林", "dose": 2.50, "prn": true}}',
        '{"question": "c", "answer": "{\\"drug\\":  null}"}',
        '{"question": "d", "answer": []}',
        '{"instruction": "e", "input": "", "output": ["x"]}',
        '{"messages": [{"role": "user", "content": "f"}, {"role": "assistant", "content": "[1]"}]}',
    )
    answers, found = read_lists(path)
    assert answers == [
        '["aspirin", "5 mg"]',
        '{"drug": "阿司匹林", "dose": 2.50, "prn": true}',
        '{"drug":  null}',
        "[]",
        '["x"]',
        "[1]",
    ]
    assert not found.drops


def test_items_between_separators_become_a_list(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        'question,answer\na,"aspirin, 5 mg| ibuprofen |"\nb,aspirin\n', encoding="utf-8"
    )
    answers, _ = read_lists(path, kind="csv", item_separator="|")
    assert answers == ['["aspirin, 5 mg", "ibuprofen"]', '["aspirin"]']


def test_lists_of_a_typed_table(tmp_path):
    path = tmp_path / "a.parquet"
    doses = pyarrow.array([[0.1, 2.5], [7]], pyarrow.list_(pyarrow.float32()))
    for answers, expected in (
        ([["x", "y"], ["z"]], ['["x", "y"]', '["z"]']),
        (doses, ["[0.1, 2.5]", "[7.0]"]),
    ):
        parquet.write_table(pyarrow.table({"question": ["a", "b"], "answer": answers}), path)
        assert read_lists(path, kind="parquet")[0] == expected


def test_what_is_no_list_is_counted_with_its_place(tmp_path):
    spans = [{"start": 0, "end": 7, "label": "DRUG"}]
    rows = [["x"], "plain text", "[broken", spans, [{"start": 0, "text": "y"}], "3"]
    rows.append([[0, 7, "DRUG"], [9, 12, "DOSE"]])
    lines = [json.dumps({"question": f"q{n}", "answer": row}) for n, row in enumerate(rows)]
    answers, found = read_lists(write_lines(tmp_path / "a.jsonl", *lines))
    assert answers == ['["x"]', '[{"start": 0, "text": "y"}]']
    assert [(drop.place, drop.reason.key) for drop in found.drops] == [
        ("a.jsonl:2", "not_a_list"),
        ("a.jsonl:3", "not_a_list"),
        ("a.jsonl:4", "span_without_text"),
        ("a.jsonl:6", "not_a_list"),
        ("a.jsonl:7", "span_without_text"),
    ]
    with pytest.raises(DataError, match="not_a_list"):
        read_lists(write_lines(tmp_path / "b.jsonl", lines[1]))


def test_a_list_without_the_setting_is_refused_as_before(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", '{"question": "a", "answer": ["x"]}')
    with pytest.raises(DataError, match="is list, expected text"):
        read_source("jsonl", path=path)


@pytest.mark.parametrize(
    ("answer", "expected", "f1"),
    [
        ('["b", "a"]', '["a", "b"]', 1.0),
        ('["A"]', '["a", "b"]', 2 / 3),
        ('["a", "a", "c"]', '["a", "b"]', 0.5),
        ("[]", "[]", 1.0),
        ("[]", '["a"]', 0.0),
        ("a, b", '["a", "b"]', 0.0),
        ('["a", "b"', '["a", "b"]', 0.0),
        ('{"dose": "500 mg", "drug": ["a"]}', '{"drug": ["a"], "dose": "0.5 g"}', 1.0),
        ('{"drug": "a", "dose": "5 mg"}', '{"drug": "a", "dose": "50 mg"}', 0.5),
        ('{"drug": "5 mg", "dose": "a"}', '{"drug": "a", "dose": "5 mg"}', 0.0),
        ('{"n": 5}', '{"n": "5", "m": null}', 1.0),
        (
            '[{"text": "x", "label": "A"}, {"label": "B", "text": "y"}]',
            '[{"text": "y", "label": "B"}, {"text": "x", "label": "A"}]',
            1.0,
        ),
        (
            '[{"text": "x", "label": "B"}, {"text": "y", "label": "A"}]',
            '[{"text": "x", "label": "A"}, {"text": "y", "label": "B"}]',
            0.0,
        ),
        ('["aspirin, 5 mg"]', '["aspirin", "5 mg"]', 0.0),
        ('[["a", 5], ["b", 9]]', '[["b", 9.0], ["a", 5]]', 1.0),
        ('[["a", 9], ["b", 5]]', '[["a", 5], ["b", 9]]', 0.0),
        ('[["a", null, 5]]', '[["a", 5, null]]', 0.0),
        ("a、b", "b、a", 1.0),
    ],
)
def test_they_are_scored_as_sets_of_items(answer, expected, f1):
    assert entity_f1(answer, expected=[expected]) == pytest.approx(f1)
