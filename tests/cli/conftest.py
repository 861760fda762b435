"""The command line in this process, and a model to ask."""

import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app
from tests.support import tiny_recipe


@pytest.fixture
def invoke(monkeypatch):
    monkeypatch.chdir(tiny_recipe.ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    runner = CliRunner()

    def invoke(*arguments, code=0):
        result = runner.invoke(app, [str(item) for item in arguments], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    return invoke


@pytest.fixture
def student():
    return tiny_recipe.runs() / "tiny" / "student"
