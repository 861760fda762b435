"""A recipe is checked without the libraries that only running it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = sorted(Path("recipes").glob("*.yaml"))
HEAVY = ("torch", "transformers", "sklearn", "datasets", "pyarrow", "onnx", "optuna")
PROGRAM = """
import sys
from limbeck.cli.main import app
try:
    app(["check", sys.argv[1]])
except SystemExit as error:
    assert not error.code, error.code
print([name for name in sys.argv[2:] if name in sys.modules])
"""


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_checking_a_recipe_loads_no_heavy_library(recipe):
    command = [sys.executable, "-c", PROGRAM, str(recipe), *HEAVY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "LIMBECK_" in done.stderr or "does not exist" in done.stderr:
        pytest.skip("the recipe reads data that is not here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_plan_of_a_fresh_recipe_builds_no_architecture():
    program = PROGRAM.replace('"check"', '"plan"')
    heavy = ("transformers.modeling_utils", "transformers.tokenization_utils_tokenizers", "sklearn")
    command = [sys.executable, "-c", program, "recipes/demo.yaml", *heavy]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
