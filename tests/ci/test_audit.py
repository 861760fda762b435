"""The dependency audit: what pip-audit reports, as a verdict."""

import importlib
import json
import sys

import pytest

from tests.support.documentation import ROOT

REPORT = json.loads("""
{"dependencies": [
  {"name": "sound", "version": "1.0", "vulns": []},
  {"name": "unmended", "version": "2.0", "vulns": [
    {"id": "PYSEC-1", "fix_versions": [], "aliases": ["CVE-1"], "description": "..."}]},
  {"name": "mended", "version": "3.0", "vulns": [
    {"id": "PYSEC-2", "fix_versions": ["3.1", "4.0"], "aliases": [], "description": "..."}]},
  {"name": "strange", "skip_reason": "Dependency not found on PyPI"}], "fixes": []}
""")
"""In the shape of pip-audit 2.10."""


@pytest.fixture
def audit(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / ".ci")
    monkeypatch.delitem(sys.modules, "audit", raising=False)
    return importlib.import_module("audit")


def keep(*names):
    return {"dependencies": [item for item in REPORT["dependencies"] if item["name"] in names]}


def test_only_what_a_release_mends_fails(audit):
    lines, fails = audit.judge(REPORT)
    assert fails
    assert lines == [
        "dependency audit: 2 known faults in 3 of 4 pins; 1 are not in the index, and not audited",
        "  unmended 2.0: PYSEC-1, CVE-1; no release mends it",
        "  mended 3.0: PYSEC-2; mended in 3.1, 4.0: raise the pin",
    ]
    assert not audit.judge(keep("sound", "unmended"))[1]
    lines, fails = audit.judge(keep("strange"))
    assert (lines, fails) == (
        ["dependency audit: not done, the index knows none of 1 pins"],
        False,
    )


def test_no_network_is_reported_and_fails_nothing(audit, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(audit, "FOLDER", tmp_path)
    (tmp_path / "pip_audit").mkdir()
    (tmp_path / "pip_audit" / "__main__.py").write_text("raise OSError('no network')")
    assert audit.main() == 0
    assert "not done (OSError: OSError: no network)" in capsys.readouterr().out
