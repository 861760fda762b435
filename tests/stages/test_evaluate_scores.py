"""The stage: free answers, labels and what a model declines, in every view of the report."""

import dataclasses
import io
import json
import re
import shutil

import pytest
from rich.console import Console

from limbeck.contracts.answer_policy import AnswerPolicy, PolicyFile
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.familiarity import Familiarity
from limbeck.contracts.records import Question, Record
from limbeck.evaluation.foreign import read_foreign
from limbeck.evaluation.report.build import read_report
from limbeck.evaluation.report.terminal import (
    make_declined_table,
    make_score_table,
    make_task_table,
)
from limbeck.stages import evaluate
from tests.support import fake_answerer
from tests.support.answer_policies import CONFIDENCE
from tests.support.evaluation_work import config, make_work, use_plain_records


@pytest.fixture
def work(tmp_path, monkeypatch):
    return make_work(tmp_path, monkeypatch)


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


def test_labels_are_distinguished_in_every_view(work):
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


def test_what_a_calibrated_model_declines_stands_in_every_view(work):
    teacher = work.inputs["models"][0]
    confidence = CONFIDENCE.replace(home_topics=("law",))
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
