"""Corpora that the stage `prepare` makes, and what they hold."""

import json
from pathlib import Path

from limbeck.contracts.artifacts import Work, read_artifact
from limbeck.contracts.records import SPLITS, Question, Record, read_jsonl
from limbeck.packs import folder
from limbeck.stages.config.prepare import Config
from limbeck.stages.prepare import run

CONSULT = folder("medical") / "consult"


KNOWLEDGE = {
    "kind": "knowledge",
    "facts": {"forms_per_fact": 2},
    "classification": {"train_sets": 2},
}


FILTERS = [
    {"kind": "length"},
    {"kind": "in_evaluation"},
    {"kind": "duplicates", "nearly_equal": "drop"},
    {"kind": "quality"},
]


ANSWER = "这是一个足够长的回答，建议到医院就诊并完善检查，遵医嘱治疗。"


def dirty(path, **fields):
    """A source of raw Chinese texts, many of which go."""
    return {"kind": "jsonl", "path": path, "normalization": "zh", "max_dropped_ratio": 1} | fields


def prepare(path, *sources, **fields):
    for name in ("corpus", "state"):
        (path / name).mkdir(parents=True)
    config = Config.model_validate(
        {"stage": "prepare", "pack": "medical", "sources": list(sources), **fields}
    )
    named = fields.get("tokenizer")
    inputs = {"tokenizer": (read_artifact(Path(named)),)} if isinstance(named, str) else {}
    metrics = run(config, work=Work("corpus", path / "corpus", path / "state", inputs))
    return path / "corpus", metrics


def write_rows(path, *pairs):
    rows = [{"question": question, "answer": answer} for question, answer in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_all(corpus):
    return [record for split in SPLITS for record in read_records(corpus, split)]


def read_records(corpus, split):
    return [Record.from_json(value) for value in read_jsonl(corpus / "records" / f"{split}.jsonl")]


def read_questions(corpus):
    return [
        Question.from_json(value)
        for path in sorted((corpus / "questions").glob("*.jsonl"))
        for value in read_jsonl(path)
    ]
