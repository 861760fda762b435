"""The commands on the artifact store and the model registry."""

import json

import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.pipeline.store import Store
from tests.pipeline.test_store import put


@pytest.fixture
def invoke(tmp_path):
    """Runs a command on a runs folder with two artifacts, of which one has a name."""
    store = Store(tmp_path / "runs")
    put(store, "old")
    put(store, "new", name="demo/student")

    def invoke(*arguments, code=0):
        result = CliRunner().invoke(app, [*map(str, arguments), "--runs", str(store.runs)])
        assert result.exit_code == code, result.output
        return result

    invoke.student = store.runs / "demo" / "student"
    return invoke


def test_list_and_gc(invoke):
    listed = json.loads(invoke("store", "list", "--json").stdout)
    assert sorted(tuple(item["names"]) for item in listed) == [(), ("demo/student",)]
    assert "demo/student" in invoke("store", "list").stdout
    assert "1 more that nothing needs" in invoke("store", "gc").stdout
    assert "would free" in invoke("store", "gc", "--keep-days", 0, "--dry-run").stdout
    found = json.loads(invoke("store", "gc", "--keep-days", 0, "--json").stdout)
    assert found["freed_bytes"] > 0
    assert len(json.loads(invoke("store", "list", "--json").stdout)) == 1


def test_verify(invoke):
    assert "whole" in invoke("store", "verify").stdout
    (invoke.student / "a.txt").write_text("wen")
    assert "damaged: a.txt" in invoke("store", "verify", code=1).stdout


def test_promote_roll_back_and_history(invoke):
    event = json.loads(invoke("promote", "chat", invoke.student, "--by", "ada", "--json").stdout)
    assert (event["name"], event["by"], event["action"]) == ("chat", "ada", "promote")
    assert "[champion now]" in invoke("history", "chat").stdout
    day = event["time"][:4]
    assert "nothing answered then" in invoke("history", "chat", "--at", "2001-01-01").stdout
    assert day in invoke("history", "chat", "--at", "9998-01-01").stdout
    assert "expected 2026-11-24" in invoke("history", "chat", "--at", "Tuesday", code=1).stderr
    assert "no champion before" in invoke("rollback", "chat", code=1).stderr
    assert "unknown served name" in invoke("history", "other", code=1).stderr
