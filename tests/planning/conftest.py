import subprocess
import sys

import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app
from tests.support import tiny_recipe


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    """Runs `limbeck plan` in a terminal of 100 columns."""
    monkeypatch.chdir(tiny_recipe.ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    def invoke(*arguments, code=0):
        command = ["plan", *map(str, arguments), "--runs", str(tmp_path)]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def modules_loaded():
    """Runs `limbeck plan` in a process of its own; the names of what it has imported at its end."""

    def modules_loaded(*arguments):
        words = ["limbeck", "plan", *map(str, arguments)]
        code = (
            f"import sys\nfrom limbeck.cli.main import app\nsys.argv = {words!r}\n"
            "app(standalone_mode=False)\nprint(*sys.modules, file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        return set(done.stderr.split())

    return modules_loaded
