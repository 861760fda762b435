"""`limbeck new` on a file of rows, in a folder of its own."""

import pytest
import yaml

from limbeck.cli.main import app
from tests.support.published_checkpoints import TEACHERS, make_checkpoint


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "teacher"
    make_checkpoint(folder, build=TEACHERS["qwen3_moe"])
    return folder


@pytest.fixture
def new(tmp_path, monkeypatch, teacher):
    """Runs the command on a file of the given content; what it printed, its code, the recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    from typer.testing import CliRunner

    def new(name, content, *options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        words = ["new", "mine.yaml", "--data", name, "--teacher", str(teacher), *options]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        recipe = tmp_path / "mine.yaml"
        found = yaml.safe_load(recipe.read_text(encoding="utf-8")) if recipe.is_file() else None
        return " ".join(result.output.split()), result.exit_code, found

    return new
