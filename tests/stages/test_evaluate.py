"""The stage: one report of all models, resumable, with a page that needs nothing else."""

import dataclasses
import io
import json
import re
import shutil

import pytest
from pydantic import ValidationError
from rich.console import Console

from limbeck.contracts.answer_policy import AnswerPolicy, Confidence, PolicyFile
from limbeck.contracts.artifacts import Parent, Work, hash_files
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError, DataError, LeakError
from limbeck.contracts.familiarity import Familiarity
from limbeck.contracts.records import Question, Record, write_jsonl
from limbeck.evaluation.foreign import read_foreign
from limbeck.evaluation.report.build import read_report
from limbeck.evaluation.report.terminal import (
    make_declined_table,
    make_score_table,
    make_table,
    make_task_table,
)
from limbeck.stages import evaluate
from tests.support import fake_answerer
from tests.support.artifacts import make_artifact

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
    monkeypatch.setattr(evaluate, "open_answerer", fake_answerer.open_lookup)
    corpus = make_artifact(tmp_path / "corpus", "corpus")
    (corpus.path / "questions").mkdir()
    (corpus.path / "records").mkdir()
    for task in sorted({question.task for question in fake_answerer.QUESTIONS}):
        chosen = [question for question in fake_answerer.QUESTIONS if question.task == task]
        write_jsonl(corpus.path / "questions" / f"{task}.jsonl", chosen)
    record = Record("1", "高血压看哪个科？", "心血管内科", "g", "pack")
    for split, count in (("train", 3), ("validation", 1), ("test", 1)):
        write_jsonl(corpus.path / "records" / f"{split}.jsonl", [record] * count)
    card = {
        "pack": "medical",
        "tasks": {"triage": {"zh": "分诊", "en": "triage"}},
        "specialties": {"cardiology": {"zh": "心血管内科", "en": "Cardiology"}},
        "headline_tasks": ["recall", "choice"],
        "disclaimer": {"zh": "仅供参考", "en": "for reference only"},
    }
    (corpus.path / "card.json").write_text(json.dumps(card))
    parent = Parent(name="corpus", path="corpus", kind="corpus", content_hash="hash of corpus")
    teacher = make_artifact(tmp_path / "teacher", "checkpoint", parents={"corpus": (parent,)})
    curve = [{"step": step, "loss": 4.0 / (step + 1), "lr": 0.1} for step in range(5)]
    (teacher.path / "history.json").write_text(json.dumps(curve))
    load = {"layers": [[3, 1, 0, 4], [2, 2, 2, 2]]}
    load["by_specialty"] = {"cardiology": [[3, 1, 0, 4]] * 2, "": [[1, 1, 1, 1]] * 2}
    (teacher.path / "routing.json").write_text(json.dumps(load))
    tiny = make_artifact(tmp_path / "ignorant", "bundle", parents={"checkpoint": ()})
    (tmp_path / "report").mkdir()
    return Work(
        "report",
        tmp_path / "report",
        tmp_path / "state",
        {"models": (teacher, tiny), "corpus": (corpus,)},
    )


def config(**changes):
    return evaluate.Config.model_validate(
        {
            "stage": "evaluate",
            "models": ["teacher", "ignorant"],
            "corpus": "corpus",
            "headline_tasks": ["recall", "triage", "choice"],
            "profile": {"questions": 2, "rounds": 2},
        }
        | changes
    )


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

    def answer_all_without_opening(*, open_answerer, **arguments):
        def refuse():
            raise AssertionError("opened although every answer is there")

        return original(open_answerer=refuse, **arguments)

    original = evaluate.answer_all
    monkeypatch.setattr(evaluate, "answer_all", answer_all_without_opening)
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


def use_plain_records(work):
    """Training and test records as of plain pairs of question and answer, without a pack's own."""
    corpus = Corpus(work.one("corpus").path)
    shutil.rmtree(corpus.questions_path)
    held_out = [
        Record("1", "高血压去医院看什么科？", "心血管内科", "a", "qa"),
        Record(
            "2", "高血压通常会出现什么症状？", "头痛、头晕、心悸", "b", "qa", answer_form="list"
        ),
        Record("3", "为什么？", "没有人知道为什么。", "b", "qa"),
        Record("4", "", "纯文本。", "c", "qa"),
        Record("5", "还有呢？", "没有。", "d", "qa", history=("你好", "你好")),
    ]
    corpus.write_records("train", [Record("0", "感冒看什么科？", "呼吸内科", "x", "qa")])
    corpus.write_records("test", held_out)


def test_without_questions_the_test_split_is_measured(work):
    use_plain_records(work)
    metrics = evaluate.run(config(headline_tasks=[]), work=work)
    report = json.loads((work.folder / "report.json").read_text())
    assert report["corpus"]["split"].startswith("test (held out")
    assert report["corpus"]["tasks"] == {"test_split": {"asked": 4, "available": 4}}
    assert (report["corpus"]["left_out"], report["headline_tasks"]) == (1, ["test_split"])
    teacher, ignorant = report["rows"]
    assert teacher["accuracy"] == 2 / 4
    assert teacher["accuracy_interval"]["low"] < 2 / 4 < teacher["accuracy_interval"]["high"]
    assert teacher["tasks"]["test_split"]["count"] == teacher["log_likelihood"]["count"] == 4
    # A score is the answer's distance from 8 characters, as fake_answerer has it.
    assert teacher["log_likelihood"]["value"] == pytest.approx(-(3 + 0 + 1 + 5) / 4)
    for row in (teacher, ignorant):
        found = row["log_likelihood"]
        assert found["low"] < found["value"] < found["high"]
    assert metrics["teacher"]["log_likelihood"] == teacher["log_likelihood"]["value"]
    page, text = ((work.folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert "Log-likelihood of the test split" in page and "测试切分" in page
    assert "Log-likelihood of the test split" in text and "1 without a question" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    console = Console(width=120, file=io.StringIO())
    console.print(make_task_table(read_report(work.folder / "report.json")))
    assert "log-likelihood" in console.file.getvalue()
    check_free_answers(work, report, metrics=metrics)


def check_free_answers(work, report, *, metrics):
    """One of four answers is equal, one a list in another order of words."""
    teacher, ignorant = report["rows"]
    scores = dict(teacher["texts"]["test_split"])
    lists = scores.pop("entity_f1")
    assert lists["count"] == 1 and 0 <= lists["low"] <= lists["value"] <= lists["high"] <= 1
    assert scores.keys() == {"exact_match", "token_f1", "chrf", "rouge_l"}
    assert scores["exact_match"]["value"] == 1 / 4
    for item in scores.values():
        assert item["low"] < item["value"] < item["high"] and item["count"] == 4
        assert item["value"] > ignorant["texts"]["test_split"]["exact_match"]["value"]
    # Distances from 8 characters, times the characters and an end, over bytes of three each.
    nats = teacher["nats_per_byte"]
    assert nats["value"] == pytest.approx((3 * 6 + 0 * 9 + 1 * 10 + 5 * 4) / (3 * (5 + 8 + 9 + 3)))
    assert metrics["teacher"]["nats_per_byte"] == nats["value"]
    page, text = ((work.folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    for words in ("ROUGE-L", "chrF", "token F1", "nats/byte", "entity F1"):
        assert words in page and words in text
    console = Console(width=130, file=io.StringIO())
    console.print(make_score_table(read_report(work.folder / "report.json")))
    assert "ROUGE-L" in console.file.getvalue() and "…" not in console.file.getvalue()
    check_lists_alone(read_report(work.folder / "report.json"))


def check_lists_alone(report):
    """Where every answer is a list, the terminal shows the items instead of the order of words."""

    def only_lists(row):
        texts = {
            task: dataclasses.replace(
                scores, entity_f1=dataclasses.replace(scores.entity_f1, count=4)
            )
            for task, scores in row.texts.items()
        }
        return dataclasses.replace(row, texts=texts)

    rows, floors = (tuple(map(only_lists, rows)) for rows in (report.rows, report.floors))
    console = Console(width=130, file=io.StringIO())
    console.print(make_score_table(dataclasses.replace(report, rows=rows, floors=floors)))
    assert "entity F1 n=4" in console.file.getvalue()
    assert "ROUGE-L" not in console.file.getvalue()


def test_labels_are_told_apart_in_every_view(work):
    corpus = Corpus(work.one("corpus").path)
    options = ("呼吸内科", "心血管内科")
    questions = [
        Question(str(place), "intent", text, (answer,), "single", options=options)
        for place, (text, answer) in enumerate(
            [
                ("高血压去医院看什么科？", options[1]),
                ("我出现了胸闷，去医院看哪个科？", options[1]),
                *((f"咳嗽{place}天了看什么科？", options[0]) for place in range(8)),
            ]
        )
    ]
    shutil.rmtree(corpus.questions_path)
    corpus.write_questions(questions)
    corpus.write_records("train", [Record("0", "咳嗽去哪看？", options[0], "x", "qa")])
    evaluate.run(config(headline_tasks=["intent"]), work=work)
    report = json.loads((work.folder / "report.json").read_text())
    found = report["rows"][0]["labels"]["intent"]
    # One of the teacher's answers ends in a full stop, and a label is compared whole.
    assert found["num_labels"] == 2 and found["accuracy"]["value"] == 1 / 10
    assert found["macro_f1"]["value"] == pytest.approx((2 / 3 + 0) / 2)
    assert report["floors"][1]["labels"]["intent"]["accuracy"]["value"] == 8 / 10
    page, text = ((work.folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert "macro-F1" in page and "macro-F1" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert make_score_table(read_report(work.folder / "report.json")) is not None


def test_models_are_opened_with_the_threads_and_rows_of_the_config(work, monkeypatch):
    monkeypatch.setattr(evaluate, "open_answerer", fake_answerer.open_threaded)
    monkeypatch.setattr(fake_answerer, "OPENED", [])
    profile = {"questions": 1, "rounds": 1, "thread_counts": [2, 1]}
    evaluate.run(config(num_threads=3, batch_size=5, profile=profile), work=work)
    assert fake_answerer.OPENED == [("teacher", 3, 5), ("ignorant", 3, 5)]
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
        ({"floors": ["teacher"]}, "'majority', 'lookup', 'entity_lookup' or 'linear'"),
        ({"language": "German"}, "pattern"),
        ({"asks": 3}, "unknown key"),
        ({"questions": "all"}, "'auto', 'pack' or 'test'"),
        ({"profile": {"rounds": 0}}, "greater than 0"),
    ],
)
def test_a_wrong_config_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_what_a_calibrated_model_declines_stands_in_every_view(work):
    teacher = work.inputs["models"][0]
    confidence = Confidence(
        bias=0.0,
        log_prob_weight=1.0,
        familiarity_weight=0.0,
        min_confidence_ratio=0.4,
        min_familiarity_ratio=0.5,
        basis="right answers",
        num_held_out=100,
        num_right=90,
        num_foreign=100,
        home_topics=("law",),
        declined_right_ratio=0.0,
        declined_foreign_ratio=1.0,
    )
    familiarity = Familiarity.of(item.question for item in fake_answerer.QUESTIONS)
    AnswerPolicy(PolicyFile(confidence=confidence), familiarity).write(teacher.path)
    evaluate.run(config(), work=work)
    report = json.loads((work.folder / "report.json").read_text())
    found = report["rows"][0]["declined"]
    asked = read_foreign("measurement", without=["law"])
    assert found["foreign"]["count"] == len(asked)
    assert found["foreign"]["value"] == 1  # whatever is not in the table is answered 不知道
    assert found["right"]["value"] == 0
    assert "declined" not in report["rows"][1]
    lines = (work.folder / "foreign" / "teacher.jsonl").read_text().splitlines()
    assert {json.loads(line)["question"] for line in lines} == {q.question for q in asked}
    page, text = ((work.folder / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert "Saying that it does not know" in page and "Saying that it does not know" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    console = Console(width=140, file=io.StringIO())
    console.print(make_declined_table(read_report(work.folder / "report.json")))
    assert f"n={len(asked)}" in console.file.getvalue()
