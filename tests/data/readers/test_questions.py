"""Questions without answers: any file's, each column of them, in the form that is asked."""

import json

import pytest
from pydantic import ValidationError

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Change, Drop, Record
from limbeck.data.packs.load import empty_pack
from limbeck.data.readers.questions import Config


def read(path, **fields):
    config = Config.model_validate({"kind": "questions", "path": path, **fields})
    return list(config.read(pack=empty_pack(), seed=0))


def records(items):
    return [item for item in items if isinstance(item, Record)]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_every_column_of_a_pair_is_a_question(tmp_path, kind):
    rows = [
        {"text1": "尿酸高怎么办？", "text2": "痛风吃什么", "label": "1"},
        {"text1": "  ", "text2": "感冒多久好", "label": "0"},
    ]
    path = tmp_path / f"pairs.{kind}"
    if kind == "csv":
        path.write_text("\n".join(",".join(row) for row in (rows[0], *map(dict.values, rows))))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    items = read(path, columns=["text1", "text2"], form="意图：{text}", task="intent")
    found = records(items)
    assert [item.question for item in found] == [
        "意图：尿酸高怎么办？",
        "意图：痛风吃什么",
        "意图：感冒多久好",
    ]
    assert {item.answer for item in found} == {""}
    assert len({item.id for item in found}) == 3
    assert found[0].group == "intent|尿酸高怎么办"
    (dropped,) = [item for item in items if isinstance(item, Drop)]
    assert dropped.reason.key == "missing_field"


def test_texts_are_left_alone_unless_it_is_asked(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"question": "剂量２.５ｍｇ，每日两次？"}))
    assert records(read(path))[0].question == "剂量２.５ｍｇ，每日两次？"
    items = read(path, normalization="zh")
    assert records(items)[0].question == "剂量2.5mg，每日2次？"
    assert any(isinstance(item, Change) for item in items)


@pytest.mark.parametrize("text", ['{"query": "a"}', '{"question": ""}'])
def test_a_file_without_such_texts_names_its_columns(tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    name = "query" if "query" in text else "question"
    with pytest.raises(DataError, match=f"columns 'question'; found '{name}'"):
        read(path)


def test_a_form_of_columns_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="has other slots"):
        read(tmp_path / "a.jsonl", form="{text} {question}")


def test_a_column_inside_an_object(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"data": {"texts": ["q"]}}))
    assert [item.question for item in records(read(path, columns=["data.texts.0"]))] == ["q"]
