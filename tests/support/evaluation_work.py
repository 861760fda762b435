"""A corpus, a model that knows its table and one that does not, to be evaluated."""

import json
import shutil

from limbeck.contracts.artifacts import Parent, Work
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.records import Record, write_jsonl
from limbeck.stages import evaluate
from tests.support import fake_answerer
from tests.support.artifacts import make_artifact


def make_work(tmp_path, monkeypatch) -> Work:
    """The work of the stage, its models opened by name."""
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
