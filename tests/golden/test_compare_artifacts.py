"""The comparison of two checkouts' artifacts finds what differs, and forgives what was renamed."""

import json

import numpy as np
from safetensors.numpy import save_file

from tests.golden.compare_artifacts import compare


def make_runs(folder, *, weight=1.0, config=None):
    artifact = folder / "tiny" / "student"
    artifact.mkdir(parents=True)
    (artifact / "manifest.json").write_text("{}")
    (artifact / "config.json").write_text(json.dumps(config or {}))
    save_file({"weight": np.array([weight])}, artifact / "model.safetensors")
    return folder


def test_equal_runs_do_not_differ(tmp_path):
    old = make_runs(tmp_path / "old", config={"normalize_gate": "picked"})
    new = make_runs(tmp_path / "new", config={"norm_topk_prob": True, "disclaimer": "x"})
    assert compare(old, new) == []


def test_another_weight_or_value_or_file_is_named(tmp_path):
    old = make_runs(tmp_path / "old", config={"hidden_size": 4})
    new = make_runs(tmp_path / "new", weight=np.nextafter(1.0, 2.0), config={"hidden_size": 8})
    (new / "tiny" / "student" / "more.txt").write_text("x")
    assert compare(old, new) == [
        "new: tiny/student/more.txt",
        "differs: tiny/student/config.json",
        "differs: tiny/student/model.safetensors",
    ]
