"""The stage: one report of all models, resumable, with a page that needs nothing else."""

import dataclasses
import io
import json
import re

import pytest
from pydantic import ValidationError
from rich.console import Console

from limbeck.contracts.artifacts import hash_files
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError, DataError, LeakError
from limbeck.contracts.records import Record, write_jsonl
from limbeck.evaluation import answer_questions
from limbeck.evaluation.report.build import read_report
from limbeck.evaluation.report.terminal import (
    make_score_table,
    make_table,
    make_task_table,
)
from limbeck.stages import evaluate
from tests.support import fake_answerer
from tests.support.evaluation_work import config, make_work, use_plain_records

ROW_KEYS = {
    "name",
    "parameters",
    "active_parameters",
    "size_bytes",
    "peak_memory_bytes",
    "latency_seconds",
    "tokens_per_second",
    "tasks",
    "accuracy",
    "kept_ratio",
    "speedup_ratio",
    "memory_ratio",
}


@pytest.fixture
def work(tmp_path, monkeypatch):
    return make_work(tmp_path, monkeypatch)


def test_report(work, monkeypatch):
    metrics = evaluate.run(config(), work=work)
    report = json.loads((work.folder / "report.json").read_text())
    assert set(report) >= {"schema_version", "environment", "corpus", "rows", "reference"}
    assert report["corpus"]["splits"] == {"train": 3, "validation": 1, "test": 1}
    assert report["reference"]["quantised"]["speedup_ratio"] == 4.3
    teacher, tiny = report["rows"]
    for row in (teacher, tiny):
        assert set(row) >= ROW_KEYS
        assert 0 < row["latency_seconds"]["p50"] <= row["latency_seconds"]["p95"]
        assert row["tasks"]["recall"].keys() == {"value", "low", "high", "count"}
        for item in row["load_by_threads"].values():
            assert len(item["before"]) == len(item["after"]) == 3
        assert row["default_threads"]["num_threads"] == 1
        assert row["default_threads"]["reason"] == "work too small to share"
        assert row["tasks"].keys() == {"recall", "triage", "choice", "refusal"}
    assert teacher["accuracy"] == 4 / 5
    assert teacher["accuracy_interval"]["count"] == 5
    assert (teacher["kept_ratio"], teacher["speedup_ratio"], teacher["memory_ratio"]) == (1, 1, 1)
    assert tiny["kept_ratio"] == 0
    assert tiny["memory_ratio"] == 2 * 1000 / 100
    assert tiny["refused"]["value"] == 1
    assert metrics["teacher"]["accuracy"] == teacher["accuracy"]
    check_floors(report, folder=work.folder)
    check_page((work.folder / "report.html").read_text())
    check_markdown((work.folder / "report.md").read_text())
    check_table(read_report(work.folder / "report.json"))
    check_resume(work, monkeypatch)


def check_floors(report, *, folder):
    """Of six training records three ask a held-out subject's department, in other words."""
    majority, lookup, linear = report["floors"]
    assert [floor["name"] for floor in report["floors"]] == ["majority", "lookup", "linear"]
    assert majority["tasks"]["recall"]["value"] == majority["tasks"]["triage"]["value"] == 0.5
    assert lookup["tasks"]["choice"] == report["rows"][0]["tasks"]["choice"]
    assert lookup["accuracy"] == 3 / 5 and lookup["accuracy_interval"]["count"] == 5
    assert set(linear["missing"].values()) == {"one answer only"}
    assert linear["accuracy"] is None and linear["accuracy_interval"] is None
    teacher, tiny = report["rows"]
    assert (teacher["beaten_by"], teacher["beaten_in"]) == ([], {})
    assert tiny["beaten_by"] == ["majority", "lookup"]
    assert tiny["beaten_in"]["choice"] == ["lookup"]
    assert "refusal" not in tiny["beaten_in"]
    rows = map(json.loads, (folder / "floors" / "lookup.jsonl").read_text().splitlines())
    assert {row["id"]: row["correct"] for row in rows}["r1"]


def check_page(page):
    assert page.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?://|src=|<link|@import|url\(", page)
    for words in (
        "评估报告",
        "Evaluation report",
        "心血管内科",
        "Cardiology",
        "96.6 %",
        "18.0x",
        "load beside it",
        "beaten by",
        "▼",
        "只有一种回答",
    ):
        assert words in page
    assert "load beside it" in page
    assert page.count("<svg") == 7


def check_markdown(text):
    assert "| teacher |" in text and "96.6 %" in text
    assert "| 底线 floor: 查找 lookup |" in text
    assert "**ignorant**: 不敌底线 beaten by majority, lookup" in text
    assert "1 (计算量太小 work too small to share) |" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def check_table(report):
    console = Console(width=120, file=io.StringIO())
    console.print(make_table(report), make_task_table(report))
    shown = console.file.getvalue()
    assert "80.0 %" in shown and "ref. quantised" in shown and "20.0x" in shown
    assert "refusal *" in shown and "…" not in shown
    assert "▼ lookup" in shown and "linear: one answer only" in shown
    assert make_score_table(report) is None


def check_resume(work, monkeypatch):
    """A second run asks nothing, and its hashed files are the same."""
    first = hash_files(work.folder / "answers")
    floors = hash_files(work.folder / "floors")
    assert set(first) == {"teacher.jsonl", "ignorant.jsonl"}
    assert set(floors) == {"majority.jsonl", "lookup.jsonl", "linear.jsonl"}

    def answer_all_without_opening(*, open_model, **arguments):
        def refuse():
            raise AssertionError("opened although every answer is there")

        return original(open_model=refuse, **arguments)

    original = answer_questions.answer_all
    monkeypatch.setattr(answer_questions, "answer_all", answer_all_without_opening)
    evaluate.run(config(), work=work)
    assert hash_files(work.folder / "answers") == first
    assert hash_files(work.folder / "floors") == floors


def test_a_teacher_that_knows_nothing_leaves_what_is_kept_undefined(work):
    evaluate.run(config(teacher="ignorant", profile={"questions": 1, "rounds": 1}), work=work)
    report = json.loads((work.folder / "report.json").read_text())
    assert [row["kept_ratio"] for row in report["rows"]] == [None, None]
    assert report["rows"][0]["memory_ratio"] == 2 * 100 / 4000
    assert (work.folder / "report.html").read_text().count("<svg") == 3
    make_table(read_report(work.folder / "report.json"))


def read_headline(work):
    evaluate.run(config(headline_tasks=[]), work=work)
    report = json.loads((work.folder / "report.json").read_text(encoding="utf-8"))
    return report["headline_tasks"]


def test_the_headline_is_the_packs_or_else_every_task(work):
    assert read_headline(work) == ["recall", "choice"]
    (work.one("corpus").path / "card.json").unlink()
    assert read_headline(work) == ["choice", "recall", "refusal", "triage"]


def test_a_missing_headline_task_is_named(work):
    (work.one("corpus").path / "questions" / "triage.jsonl").unlink()
    with pytest.raises(DataError, match="'triage'; there are choice, recall, refusal"):
        evaluate.run(config(), work=work)


def test_models_are_opened_with_the_threads_and_rows_of_the_config(work, monkeypatch):
    monkeypatch.setattr(evaluate, "open_answerer", fake_answerer.open_threaded)
    profile = {"questions": 1, "rounds": 1, "thread_counts": [2, 1]}
    evaluate.run(config(num_threads=3, batch_size=5, profile=profile), work=work)
    for model in work.every("models"):
        assert model.path.with_suffix(".opened").read_text().splitlines()[-1] == "3 5"
    for row in json.loads((work.folder / "report.json").read_text())["rows"]:
        by_threads = row["latency_by_threads"]
        assert {count: item["tokens_per_answer"] for count, item in by_threads.items()} == {
            "1": 1,
            "2": 2,
        }
        assert row["latency_threads"] == 2
        assert row["latency_seconds"]["p50"] == by_threads["2"]["p50"]


def test_floors_can_be_left_out(work):
    evaluate.run(config(floors=[], profile={"questions": 1, "rounds": 1}), work=work)
    report = json.loads((work.folder / "report.json").read_text())
    assert report["floors"] == []
    assert all(not row["beaten_by"] and not row["beaten_in"] for row in report["rows"])
    assert "floor" not in (work.folder / "report.md").read_text()


def test_the_source_of_questions_can_be_named(work):
    Corpus(work.one("corpus").path).write_records(
        "train", [Record("0", "感冒看什么科？", "呼吸内科", "x", "qa")]
    )
    evaluate.run(config(questions="test", headline_tasks=[]), work=work)
    report = json.loads((work.folder / "report.json").read_text())
    assert report["headline_tasks"] == ["test_split"]
    # Published results of a medical description say nothing beside the user's own questions.
    assert report["reference"] == {}
    pages = [(work.folder / name).read_text() for name in ("report.md", "report.html")]
    assert not any("8.7 GB" in page for page in pages)
    evaluate.run(config(questions="pack", headline_tasks=[]), work=work)
    report = json.loads((work.folder / "report.json").read_text())
    assert report["headline_tasks"] == ["recall", "choice"]
    assert "left_out" not in report["corpus"]
    assert all("log_likelihood" not in row for row in report["rows"])
    use_plain_records(work)
    with pytest.raises(ArtifactError, match="no questions"):
        evaluate.run(config(questions="pack"), work=work)


def test_a_test_record_that_was_trained_on_is_refused(work):
    use_plain_records(work)
    Corpus(work.one("corpus").path).write_records(
        "train", [Record("0", "为什么?", "因为。", "y", "qa")]
    )
    with pytest.raises(LeakError, match="is held out"):
        evaluate.run(config(headline_tasks=[]), work=work)


def test_a_corpus_without_questions_and_test_records_is_refused(work):
    use_plain_records(work)
    Corpus(work.one("corpus").path).write_records("test", [])
    with pytest.raises(DataError, match=r"none of its 0 records.*test_ratio"):
        evaluate.run(config(headline_tasks=[]), work=work)


def test_a_leak_is_refused_before_anything_is_asked(work):
    record = Record("1", fake_answerer.QUESTIONS[0].question, "心血管内科", "g", "pack")
    write_jsonl(work.one("corpus").path / "records" / "train.jsonl", [record])
    with pytest.raises(LeakError, match="is held out"):
        evaluate.run(config(), work=work)
    assert not work.state.exists()


def test_two_models_of_one_name_are_refused(work):
    inputs = work.inputs | {"models": work.inputs["models"][:1] * 2}
    twice = dataclasses.replace(work, inputs=inputs)
    with pytest.raises(ArtifactError, match="two artifacts"):
        evaluate.run(config(), work=twice)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "other"}, "'other' is not among"),
        ({"models": []}, "at least 1"),
        ({"models": ["a", "a"]}, "twice"),
        ({"floors": ["lookup", "lookup"]}, "one floor twice"),
        ({"floors": ["teacher"]}, "unknown floor 'teacher': known: entity_lookup, linear"),
        ({"language": "German"}, "pattern"),
        ({"asks": 3}, "unknown key"),
        ({"questions": "all"}, "'auto', 'pack' or 'test'"),
        ({"profile": {"rounds": 0}}, "greater than 0"),
    ],
)
def test_a_wrong_config_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)
