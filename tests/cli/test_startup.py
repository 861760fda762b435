"""A recipe is checked and planned without the libraries that only running it needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = [Path("recipes") / name for name in ("demo.yaml", "reference-size.yaml")]
RECIPES += sorted(Path("recipes/tests").glob("*.yaml"))
PROGRAM = """
import json, sys
from limbeck.cli.main import app
if sys.argv[1] == "plan":
    from limbeck.sizing import machine_speed
    machine_speed.has_gpu = lambda: False
options, recipes = json.loads(sys.argv[2]), sys.argv[3:]
for recipe in recipes:
    try:
        app([sys.argv[1], recipe, *options])
    except SystemExit as error:
        assert not error.code, (recipe, error.code)
print(json.dumps(sorted(sys.modules)))
"""


def loaded_by(command, recipes, *options):
    words = [sys.executable, "-c", PROGRAM, command, json.dumps(options), *map(str, recipes)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def images(monkeypatch, tmp_path):
    (tmp_path / "images.npz").write_bytes(b"not read")
    monkeypatch.setenv("LIMBECK_TEST_IMAGES", str(tmp_path / "images.npz"))


def test_checking_recipes_loads_no_heavy_library(images):
    heavy = {"torch", "transformers", "sklearn", "datasets", "pyarrow", "onnx", "optuna"}
    heavy |= {"onnxruntime", "ftfy"}
    assert not heavy & loaded_by("check", RECIPES)


def test_listing_loads_nothing_that_answers():
    assert not {"torch", "numpy", "tokenizers", "jinja2"} & loaded_by("list", ["runtimes"])


def test_a_plan_of_described_models_loads_no_heavy_library(tmp_path):
    # In a folder of its own, for what is made already is read; a GPU is measured by torch.
    found = loaded_by("plan", RECIPES[:2], "--runs", str(tmp_path))
    assert not {"torch", "transformers", "sklearn", "datasets", "scipy"} & found
