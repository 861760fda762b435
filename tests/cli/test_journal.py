"""The commands on a journal."""

import json

import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.serving.journal.config import Config
from limbeck.serving.journal.writer import Journal
from tests.support.journal import make_exchange, make_feedback


@pytest.fixture
def invoke(tmp_path):
    """Runs a command on a journal of two exchanges and one feedback."""
    path = tmp_path / "journal.sqlite"
    with Journal(Config(url=f"sqlite:///{path}", spool=tmp_path / "spool")) as journal:
        journal.put(make_exchange(0, question="[red]痛风"))
        journal.put(make_exchange(1, tier="cloud"))
        journal.put(make_feedback(0, "e1", thumbs="down"))
        assert journal.flush(30.0)

    def invoke(*arguments, code=0):
        words = ["journal", *map(str, arguments)]
        result = CliRunner().invoke(app, words, env={"LIMBECK_JOURNAL": str(path)})
        assert result.exit_code == code, result.output
        return result

    invoke.path = path
    return invoke


def test_show(invoke):
    text = invoke("show").stdout
    assert text.startswith("2 exchanges; cloud 1, edge 1; answered 2")
    assert "[red]痛风" in text
    (row,) = json.loads(invoke("show", "--review", "--json").stdout)
    assert (row["exchange"]["id"], row["reasons"][0]) == ("e1", "thumbs_down")
    assert json.loads(invoke("show", "--since", "2030-01-01", "--json").stdout) == []
    (row,) = json.loads(invoke("show", "--tier", "edge", "--json").stdout)
    assert row["exchange"]["id"] == "e0"
    assert "did you mean 'answered'" in invoke("show", "--status", "answerd", code=1).stderr


def test_verify_and_forget(invoke):
    head = json.loads(invoke("verify", "--json").stdout)["head"]
    assert "forgotten: 1 rows" in invoke("forget", "--id", "e0", "--by", "ada").stdout
    assert "4 rows, 1 of them erased: whole" in invoke("verify").stdout
    invoke("verify", "--expect", f"{head['seq']}:{head['hash']}")
    text = invoke("verify", "--expect", "3:00", code=1).stdout
    assert "row 3 (f0): the chain is not the one" in text
    assert "expected SEQ:HASH" in invoke("verify", "--expect", "x", code=1).stderr
    assert "either --older-than-days or --id" in invoke("forget", code=1).stderr
    assert json.loads(invoke("forget", "--older-than-days", 1, "--json").stdout)["forgotten"] >= 1


def test_export(invoke, tmp_path):
    found = invoke("export", tmp_path / "a.json", "--to", "argilla", "--feedback", "down").stdout
    assert "1 exchanges" in found
    (record,) = json.loads((tmp_path / "a.json").read_text())
    assert record["id"] == "e1"


def test_what_is_no_journal(invoke, tmp_path):
    missing = tmp_path / "missing.sqlite"
    assert "no such file" in invoke("show", "--journal", missing, code=1).stderr
    assert not missing.exists()
    missing.write_text("no database, but text")
    assert "cannot be read as a journal" in invoke("show", "--journal", missing, code=1).stderr
