"""Pre-training, fine-tuning, preferences and reinforcement on one budget, end to end."""

import json
import shutil

import pytest
import yaml

from tests.support import tiny_recipe

RECIPE = tiny_recipe.ROOT / "recipes" / "tests" / "progressive.yaml"
PHASES = {"base": 40, "tuned": 5, "preferred": 1, "reinforced": 1}


def read(runs, name):
    return json.loads((runs / "progressive" / name / "manifest.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("progressive")
    log = folder / "log"
    number = tiny_recipe.warm().start("run", RECIPE, "--runs", folder, output=log)
    assert tiny_recipe.warm().wait(number) == 0, log.read_text()
    return folder


def test_every_phase_reads_its_share(done):
    for name, part in PHASES.items():
        metrics = read(done, name)["metrics"]
        assert metrics["budget_planned_ratio"] == pytest.approx(part / 46)
        assert metrics["tokens_planned"] == pytest.approx(6000 * part / 46)
        # Half a step of rounding; sampled answers are of lengths that nobody knows before.
        step = metrics["tokens_seen"] / metrics["steps"]
        slack = step if name != "reinforced" else 0.5 * metrics["tokens_planned"] + step
        assert abs(metrics["tokens_seen"] - metrics["tokens_planned"]) <= slack


def test_the_report_has_a_row_for_each_phase(done):
    rows = json.loads((done / "progressive" / "report" / "report.json").read_text())["rows"]
    assert [row["name"] for row in rows] == list(PHASES)
    assert all({"recall", "refusal"} <= set(row["tasks"]) for row in rows)


def test_practice_asks_what_evaluation_asks_nowhere(done):
    texts = {}
    for name in ("corpus", "practice"):
        folder = done / "progressive" / name
        for part in ("records/train", "questions/recall", "questions/refusal"):
            lines = (folder / f"{part}.jsonl").read_text().splitlines()
            texts[name, part] = {json.loads(line)["question"] for line in lines}
    asked = texts["corpus", "questions/recall"] | texts["corpus", "questions/refusal"]
    assert asked and asked.isdisjoint(texts["practice", "records/train"])
    taught = texts["corpus", "records/train"] - {""}
    assert taught.isdisjoint(texts["practice", "records/train"])


def test_a_killed_phase_ends_with_the_same_bytes(done, tmp_path):
    """More steps than the budget gives, so that there is time to be killed in."""
    whole = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    part = {name: whole[name] for name in ("corpus", "practice", "base", "tuned", "reinforced")}
    part["reinforced"]["training"]["max_steps"] = 12
    recipe, log = tmp_path / "progressive.yaml", tmp_path / "log"
    recipe.write_text(yaml.safe_dump(part, allow_unicode=True))
    hashes = []
    for runs, killed in ((tmp_path / "a", False), (tmp_path / "b", True)):
        for entry in tuple(part)[:-1]:
            shutil.copytree(done / "progressive" / entry, runs / "progressive" / entry)
        log.write_text("")
        number = tiny_recipe.warm().start("run", recipe, "--runs", runs, output=log)
        if killed:
            while not list(runs.glob("store/.work/*/state/training.pt")):
                assert tiny_recipe.warm().wait(number, seconds=0.002) is None, log.read_text()
            tiny_recipe.kill(number)
            number = tiny_recipe.warm().start("run", recipe, "--runs", runs, output=log)
        assert tiny_recipe.warm().wait(number) == 0, log.read_text()
        hashes.append(read(runs, "reinforced")["content_hash"])
    assert hashes[0] == hashes[1]
