"""A small corpus, and the stage run on it against a server."""

import json

import pytest

from limbeck.contracts.artifacts import Work
from limbeck.contracts.records import Entity, Question, Record, write_jsonl
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.stages import label
from tests.support.artifacts import make_artifact
from tests.support.endpoint_server import KEY, MODEL
from tests.support.label_runs import NUM, name


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "records").mkdir(parents=True)
    (folder / "questions").mkdir()

    def record(key):
        marked = (Entity("热", "x", 0, "answer"), Entity(key, "x", 0, "question"))
        return Record(key, f"{key}怎么办？", f"{key}热", key, "test", entities=marked)

    train = [record(f"训{name(number)}") for number in range(NUM)]
    train.append(Record("text", "", "只是一段文字。", "text", "test"))
    write_jsonl(folder / "records" / "train.jsonl", train)
    for split in ("validation", "test"):
        write_jsonl(folder / "records" / f"{split}.jsonl", [record(f"{split}一")])
    held_out = Question("q", "recall", "谁也不问？", ("不",), "single", group="q")
    write_jsonl(folder / "questions" / "recall.jsonl", [held_out])
    answer_format = {"joiner": "、", "unknown_answer": "不知道。"}
    (folder / "card.json").write_text(json.dumps({"answer_format": answer_format}))
    texts = [item.question + item.answer for item in train]
    train_tokenizer(texts, folder=folder / "tokenizer", config=TokenizerConfig(min_count=1))
    return make_artifact(folder, "corpus")


@pytest.fixture
def go(tmp_path, corpus, monkeypatch):
    """Runs the stage against a server, in a fresh folder each time; calls are kept."""
    monkeypatch.setenv("TEACHER_KEY", KEY)

    def go(server, *, write=None, entry=None, **endpoint):
        config = label.Config.model_validate(
            {
                "stage": "label",
                "corpus": "corpus",
                "write": write or {"kind": "answers"},
                "max_failed_ratio": 0.0,
                "endpoint": {
                    "url": server.url,
                    "model": MODEL,
                    "key_variable": "TEACHER_KEY",
                    "retry_seconds": 0.01,
                    "max_concurrent": 4,
                    "timeout_seconds": 30.0,
                    "input_price": 1e6,
                    "output_price": 2e6,
                }
                | endpoint,
            }
            | (entry or {})
        )
        folder = tmp_path / "work" / "answers"
        number = sum(1 for _ in folder.glob("artifact*")) if folder.is_dir() else 0
        work = Work(
            "answers", folder / f"artifact{number}", folder / "state", {"corpus": (corpus,)}
        )
        work.folder.mkdir(parents=True)
        metrics = label.run(config, work=work)
        return work.folder, metrics

    go.calls = tmp_path / "work" / "answers" / "persistent" / "calls.jsonl"
    return go
