"""Plain pairs of question and answer, from a file to a score: no facts of a pack are needed."""

import json

import pytest
import yaml

from limbeck.contracts.artifacts import read_artifact
from limbeck.contracts.records import read_jsonl
from tests.support import tiny_recipe


def write_recipe(folder):
    """A recipe of three entries over a file of sums."""
    rows = [
        {"question": f"What is {left} plus {right}?", "answer": str(left + right)}
        for left in range(12)
        for right in range(12)
    ]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "corpus": {
            "stage": "prepare",
            "sources": [{"kind": "jsonl", "name": "sums", "path": str(folder / "sums.jsonl")}],
            "filters": [],
            "splits": {"validation_ratio": 0.0, "test_ratio": 0.2},
            "tokenizer": {"min_count": 1, "num_merges": 16},
        },
        "model": {
            "stage": "train",
            "corpus": "corpus",
            "model": {
                "kind": "dense",
                "hidden_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 8,
                "intermediate_size": 32,
                "max_position_embeddings": 128,
            },
            "objective": {"kind": "next_token"},
            "training": {"max_steps": 2, "learning_rate": 0.003, "warmup_steps": 1},
        },
        "report": {
            "stage": "evaluate",
            "models": ["model"],
            "corpus": "corpus",
            "max_questions": 10,
            "max_new_tokens": 4,
            "profile": {"questions": 1, "rounds": 1, "thread_counts": [1]},
        },
    }
    path = folder / "plain.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_plain_records_get_a_score_on_their_test_split(tmp_path):
    log = tmp_path / "log"
    warm = tiny_recipe.warm()
    number = warm.start("run", write_recipe(tmp_path), "--runs", tmp_path / "runs", output=log)
    assert warm.wait(number) == 0, log.read_text()
    made = {
        name: read_artifact(tmp_path / "runs" / "plain" / name)
        for name in ("corpus", "model", "report")
    }
    report = json.loads((made["report"].path / "report.json").read_text())
    (row,), counts = report["rows"], made["corpus"].manifest.metrics["splits"]
    assert counts["test"] > 10
    assert report["corpus"]["splits"] == counts
    assert report["corpus"]["split"].startswith("test")
    assert report["corpus"]["tasks"] == {"test_split": {"asked": 10, "available": counts["test"]}}
    assert row["accuracy_interval"].keys() == {"low", "high", "count"}
    assert row["accuracy_interval"]["low"] <= row["accuracy"] <= row["accuracy_interval"]["high"]
    likelihood = row["log_likelihood"]
    assert likelihood["low"] < likelihood["value"] < likelihood["high"] < 0
    assert likelihood["count"] == 10
    assert made["report"].manifest.metrics["model"]["log_likelihood"] == likelihood["value"]
    answers = list(read_jsonl(made["report"].path / "answers" / "model.jsonl"))
    test = read_jsonl(made["corpus"].path / "records" / "test.jsonl")
    expected = {record["id"]: record["answer"] for record in test}
    assert all(item["expected"] == [expected[item["id"]]] for item in answers)
    mean = sum(item["option_scores"][0] for item in answers) / 10
    assert likelihood["value"] == pytest.approx(mean)
