"""A quick check: what a difference and its interval say, refusals, and one whole check."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.tuning.quick_check import GainEstimate, measure_difference
from tests.support.searches import make_corpus, make_recipe


def test_the_interval_redraws_groups_and_seeds():
    rng = np.random.default_rng(0)
    counts = np.ones(400, dtype=np.int64)
    sums = rng.normal(0.2, 1.0, size=(1, 400))
    one = measure_difference(sums, counts, num_items=400)
    assert one.value == pytest.approx(sums.mean())
    half = 1.959964 * sums.std(ddof=1) / 20
    assert one.high - one.value == pytest.approx(half, rel=1e-5)
    both = measure_difference(np.concatenate([sums, sums + 0.5]), counts, num_items=400)
    assert both.high - both.low > one.high - one.low + 0.5


def test_needed_questions_just_show_the_difference():
    rng = np.random.default_rng(1)
    sums = rng.normal(0.02, 1.0, size=(1, 100))
    found = measure_difference(sums, np.ones(100, dtype=np.int64), num_items=100)
    assert found.low < 0 < found.high
    shrunk = (found.high - found.value) * (100 / found.num_needed) ** 0.5
    assert shrunk == pytest.approx(abs(found.value), rel=0.02)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.2, "pays"),
        (-0.2, -0.1, "does not pay"),
        (-0.02, 0.005, "does not pay"),
        (-0.02, 0.1, "cannot be told"),
    ],
)
def test_a_verdict_follows_the_interval(low, high, verdict):
    assert GainEstimate((low + high) / 2, low, high, 1).verdict(negligible=0.01) == verdict


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, [str(item) for item in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_a_student_with_and_without_its_teacher(tmp_path):
    recipe = make_recipe(tmp_path, make_corpus(tmp_path / "corpus"), tune=None)
    command = ("tune", recipe, "--runs", tmp_path / "runs", "--quick-check", "--steps", 4)
    output = invoke(*command, "--timeout", 0.001)
    assert "with the teacher" in output
    assert "floor: linear" in output
    folder = tmp_path / "runs" / "search" / "quick-check"
    found = json.loads((folder / "quick-check.json").read_text(encoding="utf-8"))
    assert found["sentence"] in (folder / "quick-check.md").read_text(encoding="utf-8")
    assert (found["steps"], found["recipe_steps"], found["seeds"]) == (4, 18, 1)
    ours, theirs = found["students"].values()
    paired = ours["accuracies"][0] - theirs["accuracies"][0]
    assert found["accuracy_difference"]["value"] == pytest.approx(paired)
    loss = theirs["validation_losses"][0] - ours["validation_losses"][0]
    assert found["likelihood_difference"]["value"] == pytest.approx(loss)
    refused = invoke(*command, "--set", "tune.stage=teacher", code=1)
    assert "no `distill` entry" in " ".join(refused.split())
