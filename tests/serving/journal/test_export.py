"""What is handed on has the shape that its reader documents, and holds all that was said."""

import json

import pytest

from limbeck.contracts.exchange import read_exchange, read_feedback
from limbeck.serving.journal.export import export
from limbeck.serving.journal.queries import ExchangeRow
from tests.support.documentation import ROOT
from tests.support.journal import make_exchange, make_feedback

ROWS = [
    ExchangeRow(1, "0a", make_exchange(0, confidence=None), ()),
    ExchangeRow(
        2,
        "0b",
        make_exchange(1, history=("早", "你好")),
        (
            make_feedback(0, "e1", thumbs="down", comment="不全"),
            make_feedback(1, "e1", corrected_answer="低嘌呤", role="reviewer", by="bob"),
            make_feedback(2, "e1"),
        ),
    ),
]


def test_a_corpus_holds_everything(tmp_path):
    assert export(ROWS, tmp_path / "a.jsonl", shape="corpus") == 2
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["seq"] for line in lines] == [1, 2]
    assert [read_exchange(line["exchange"]) for line in lines] == [row.exchange for row in ROWS]
    assert tuple(map(read_feedback, lines[1]["feedback"])) == ROWS[1].feedback


def test_label_studio(tmp_path):
    export(ROWS, tmp_path / "a.json", shape="label-studio")
    first, second = json.loads((tmp_path / "a.json").read_text())
    assert set(first) == {"data", "predictions", "annotations"}
    assert first["annotations"] == []
    (prediction,) = second["predictions"]
    assert prediction["model_version"] == ROWS[1].exchange.model_key
    assert prediction["score"] == 0.75
    assert "score" not in first["predictions"][0]
    results = [region for item in second["annotations"] for region in item["result"]]
    assert [(region["from_name"], region["value"]) for region in results] == [
        ("thumbs", {"choices": ["down"]}),
        ("comment", {"text": ["不全"]}),
        ("corrected_answer", {"text": ["低嘌呤"]}),
    ]
    assert [item["ground_truth"] for item in second["annotations"]] == [False, True]
    interface = (ROOT / "docs" / "serving" / "journal.md").read_text(encoding="utf-8")
    for region in (*results, *prediction["result"]):
        kind = {"choices": "Choices", "textarea": "TextArea"}[region["type"]]
        control = f'<{kind} name="{region["from_name"]}" toName="{region["to_name"]}"'
        assert control in interface
        assert f'<Text name="{region["to_name"]}"' in interface
    for name in ("history", "question", "answer"):
        assert f'value="${name}"' in interface
        assert isinstance(first["data"][name], str)


def test_argilla(tmp_path):
    export(ROWS, tmp_path / "a.json", shape="argilla")
    first, second = json.loads((tmp_path / "a.json").read_text())
    assert set(first) == {"id", "fields", "metadata", "suggestions", "responses", "vectors"}
    assert first["suggestions"]["corrected_answer"]["value"] == ROWS[0].exchange.answer
    assert "confidence" not in first["metadata"]
    assert second["metadata"]["confidence"] == 0.75
    assert second["suggestions"] == {
        "corrected_answer": {"value": "低嘌呤", "agent": "bob", "score": None},
        "thumbs": {"value": "down", "agent": "ada", "score": None},
    }
    assert all(isinstance(value, str | int | float) for value in second["metadata"].values())


@pytest.mark.parametrize("shape", ["label-studio", "argilla"])
def test_nothing_is_an_empty_list(tmp_path, shape):
    assert export([], tmp_path / "a.json", shape=shape) == 0
    assert json.loads((tmp_path / "a.json").read_text()) == []


def test_a_file_that_could_not_be_finished_leaves_the_one_before(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("before")

    def rows():
        yield ROWS[0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        export(rows(), path, shape="corpus")
    assert [item.read_text() for item in tmp_path.iterdir()] == ["before"]
