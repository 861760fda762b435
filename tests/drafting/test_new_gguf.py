"""`limbeck new` on a GGUF file: the recipe unpacks it, and `check` knows what it will be."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from limbeck.cli.main import app
from tests.support.gguf_files import write_llama


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"what is {n}?", "answer": f"the {n}"} for n in range(60)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def call(*words):
        result = CliRunner().invoke(app, list(words), catch_exceptions=False)
        return " ".join(result.output.split()), result.exit_code

    return call


def test_a_gguf_teacher_runs_to_its_corpus(call, tmp_path):
    write_llama(tmp_path / "tiny.gguf")
    said, code = call("new", "mine.yaml", "--data", "own.jsonl", "--teacher", "tiny.gguf")
    assert code == 0, said
    recipe = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert recipe["published"] == {"stage": "dequantize", "file": "tiny.gguf"}
    assert recipe["corpus"]["tokenizer"] == recipe["student"]["teacher"] == "published"
    assert recipe["cut"]["checkpoint"] == "published"
    said, code = call("check", "mine.yaml")
    assert code == 0, said
    assert "no faults" in said
    said, code = call("run", "mine.yaml", "--until", "corpus")
    assert code == 0, said
    tokens = json.loads((tmp_path / "runs/mine/corpus/tokenizer/tokenizer.json").read_text())
    assert tokens["model"]["vocab"]["Ġthe"]


def test_what_cannot_be_read_is_refused_before_a_run(call, tmp_path):
    file = tmp_path / "tiny.gguf"
    write_llama(file)
    call("new", "mine.yaml", "--data", "own.jsonl", "--teacher", "tiny.gguf")
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    said, code = call("check", "mine.yaml")
    assert code != 0
    assert "cut short" in said
    file.write_bytes(whole.replace(b"llama", b"lxama"))
    said, code = call("check", "mine.yaml")
    assert code != 0
    assert "architecture 'lxama'" in said
