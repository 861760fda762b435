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
