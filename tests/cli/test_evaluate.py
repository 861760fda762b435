"""`limbeck evaluate --harness` on checkpoints and bundles."""

import json
import sys

import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.runtimes import open_runtime
from tests.support import tiny_recipe
from tests.support.harness_tasks import write_tasks
from tests.support.tiny_checkpoints import make_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    make_checkpoint(folder / "checkpoint")
    open_runtime("onnx").write(folder / "checkpoint", folder / "bundle")
    write_tasks(folder / "tasks")
    return folder


def call(*words):
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


def test_a_checkpoint_and_a_bundle_stand_in_one_table(folder, tmp_path):
    models = [folder / "checkpoint", folder / "bundle"]
    options = ["--harness", "tiny_choice,tiny_generate", "--task-folder", folder / "tasks"]
    done = call(*models, *options, "--output", tmp_path / "out" / "found.json", "--limit", 3)
    assert done.exit_code == 0, done.output
    for word in ("tiny_choice", "acc_norm", "checkpoint", "bundle", "3 of 5", "test", "95 %"):
        assert word in done.stdout
    found = json.loads((tmp_path / "out" / "found.json").read_text())
    rows = [[(row["metric"], row["value"]) for row in model["rows"]] for model in found["models"]]
    assert rows[0] == rows[1] and len(rows[0]) == 3
    assert found["settings"]["prompts"] == "chat" and found["settings"]["limit"] == 3


def test_json_alone_is_printed(folder):
    options = ["--harness", "tiny_text", "--task-folder", folder / "tasks", "--no-chat", "--json"]
    done = call(folder / "bundle", *options)
    assert done.exit_code == 0, done.output
    (model,) = json.loads(done.stdout)["models"]
    assert {row["metric"] for row in model["rows"]} == {"byte_perplexity", "bits_per_byte"}


def test_errors_are_one_message(folder, monkeypatch):
    from lm_eval.tasks import TaskManager

    # Reading the library's own thousands of tasks takes seconds; the harness's tests do it.
    few = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
    monkeypatch.setattr("limbeck.harness.tasks._open_defaults", lambda: few)
    tasks = ["--task-folder", folder / "tasks"]
    assert "found none of --harness" in call(folder / "bundle").stderr
    assert "no such folder" in call(folder / "none", "--harness", "tiny_text", *tasks).stderr
    assert "did you mean" in call(folder / "bundle", "--harness", "tiny_txt", *tasks).stderr
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("limbeck.harness")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    done = call(folder / "bundle", "--harness", "tiny_text", *tasks)
    assert done.exit_code == 1 and "pip install 'limbeck[harness]'" in done.stderr


def test_a_corpus_becomes_tasks(tmp_path):
    corpus = tiny_recipe.runs() / "tiny" / "corpus"
    done = call(corpus, "--export-tasks", tmp_path / "own", "--max-questions", 2)
    assert done.exit_code == 0, done.output
    assert "own_recall.yaml: 2 questions" in done.stdout.replace("\n", "")
    assert "--harness own_" in done.stdout
    done = call(corpus, "--export-tasks", tmp_path / "own", "--harness", "a")
    assert done.exit_code == 1 and "name one" in done.stderr
