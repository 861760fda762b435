"""`limbeck tune`: what it refuses, how it searches, that it goes on, and that its winner runs."""

import csv
import re
import time

import pytest
import yaml
from typer.testing import CliRunner

from limbeck.cli.main import app
from limbeck.contracts.artifacts import Parent, read_artifact
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import LeakError, TuningError
from limbeck.contracts.recipe import load_recipe
from limbeck.contracts.records import Question, write_jsonl
from limbeck.evaluation.held_out_questions import read_held_out
from limbeck.tuning import scoring, search
from tests.support import artifacts, tiny_recipe
from tests.support.searches import (
    NAMES,
    make_corpus,
    make_recipe,
    make_records,
)

SEARCH = {
    "objective.temperature": {"low": 1.5, "high": 3.0},
    "objective.divergence": {"choices": [{"kind": "forward_kl"}, {"kind": "reverse_kl"}]},
    "training.learning_rate": {"choices": [0.02, 0.0000001]},
}
HOPELESS = {"max_steps": 18, "learning_rate": 0.0000001, "warmup_steps": 2}
"""A recipe's own settings that any other beats."""
TUNE = {
    "search": SEARCH,
    "pruner": {"kind": "halving"},
    "start_from": [{"training.learning_rate": 0.02}],
    "confirm": {"candidates": 1, "seeds": 3},
    "to_end_ratio": 0,
}


def invoke(*arguments, code=0):
    result = CliRunner().invoke(app, [str(item) for item in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def read_trials(folder):
    """The lines of `trials.csv` without what a clock says."""
    with (folder / "trials.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        del line["seconds"]
    return lines


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A corpus, the runs of a finished search on it, its recipe, and what was said and written."""
    folder = tmp_path_factory.mktemp("tuning")
    corpus = make_corpus(folder / "corpus")
    recipe = make_recipe(folder, corpus, tune=TUNE, training=HOPELESS)
    output = invoke("tune", recipe, "--runs", folder / "runs")
    report = folder / "runs" / "search" / "tune" / "report.md"
    return folder, corpus, recipe, output, report.read_text(encoding="utf-8")


def tuned(space):
    return space[0] / "runs" / "search" / "tune"


def test_a_search_judges_by_kept_accuracy_and_stops_hopeless_trials(space):
    trials = read_trials(tuned(space))
    assert [line["trial"] for line in trials] == ["0", "1", "2", "3"]
    own, start = trials[:2]
    assert (own["training.learning_rate"], own["objective.temperature"]) == ("1e-07", "2.0")
    assert [line["default"] for line in trials] == ["yes", "no", "no", "no"]
    assert own["state"] == "finished"  # hopeless, yet never stopped
    assert (start["training.learning_rate"], start["objective.temperature"]) == ("0.02", "2.0")
    assert start["value"] == start["kept_ratio"]
    assert float(start["value"]) > 0.5
    assert float(start["difference_low"]) > 0
    stopped = [line for line in trials if line["state"] == "stopped early"]
    hopeless = [line for line in trials[1:] if line["training.learning_rate"] == "1e-07"]
    assert hopeless
    assert all(line in stopped for line in hopeless)
    assert all(re.fullmatch(r"stopped after \d+ of 18 steps", line["reason"]) for line in stopped)
    assert all(line["value"] == "" and line["log_likelihood"] != "" for line in stopped)
    assert all(1.5 <= float(line["objective.temperature"]) <= 3 for line in trials)


def test_fresh_seeds_decide_and_every_report_shows_them(space):
    output, report = " ".join(space[3].split()), " ".join(space[4].split())
    for text in (output, report):
        assert "are better than the recipe's own" in text
        assert "over 3 fresh seeds, p < 0.05 after Holm's correction" in text
        assert re.search(r"0 \(default\).*\(\+1\), .*\(\+2\), .*\(\+3\)", text)
    assert "too few trials ran to the end" in report
    page = (tuned(space) / "report.html").read_text(encoding="utf-8")
    for words in ("Confirmed with fresh seeds", "(default)", "too few trials", "Minus default"):
        assert words in page


def test_the_report_shows_every_trial_in_both_languages_and_needs_nothing(space):
    page = (tuned(space) / "report.html").read_text(encoding="utf-8")
    for words in ("平行坐标", "Parallel coordinates", "History", "winning.yaml", *SEARCH):
        assert words in page
    for trial in read_trials(tuned(space)):
        assert f"<td>{trial['trial']}</td>" in page
    assert not re.search(r"(src|href)=|<script|url\(|@import", page)


def test_the_winning_recipe_runs_unchanged_and_makes_the_winner(space):
    folder = space[0]
    winning = tuned(space) / "winning.yaml"
    assert "winner: limbeck run" in space[3]
    invoke("run", winning, "--runs", folder / "runs")
    text = winning.read_text(encoding="utf-8")
    number = int(re.search(r"settings of trial (\d+)", text).group(1))
    default, kept = sorted((tuned(space) / "trials").glob("*/*"))
    assert (int(default.name), int(kept.name)) == (0, number)
    best = read_artifact(kept / "trial" / "student").manifest
    made = read_artifact(folder / "runs" / "winning" / "student").manifest
    assert made.content_hash == best.content_hash
    trial = read_trials(tuned(space))[number]
    entry = yaml.safe_load(text)["student"]
    assert entry["objective"]["temperature"] == float(trial["objective.temperature"])
    assert trial["value"] == max(line["value"] for line in read_trials(tuned(space)))
    assert float(trial["log_likelihood"]) == -made.metrics["validation_loss"]


def test_a_finished_search_trains_nothing_and_more_trials_go_on(space):
    before = read_trials(tuned(space))
    again = invoke("tune", space[2], "--runs", space[0] / "runs")
    assert "trial 4/4" not in again
    assert read_trials(tuned(space)) == before
    invoke("tune", space[2], "--runs", space[0] / "runs", "--trials", 5)
    assert read_trials(tuned(space))[:4] == before
    assert len(read_trials(tuned(space))) == 5


def test_no_trial_starts_when_the_time_is_over(space, tmp_path):
    arguments = ("tune", space[2], "--runs", space[0] / "runs", "--out", tmp_path / "out")
    assert "time is over after 0 of 4 trials" in invoke(*arguments, "--timeout", 0.000001)
    assert read_trials(tmp_path / "out") == []


def test_a_killed_search_goes_on_as_if_it_had_not_been(space, tmp_path):
    folder, recipe = space[0], space[2]
    out = tmp_path / "out"
    every_step = "student.training.save_interval_seconds=0"
    arguments = ("tune", recipe, "--runs", folder / "runs", "--out", out, "--set", every_step)
    number = tiny_recipe.warm().start(*arguments, output=tmp_path / "log")
    deadline = time.monotonic() + tiny_recipe.LONGEST_RUN_SECONDS
    while not list(out.glob("trials/*/0001/store/.work/*/state/training.pt")):
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.01)
    tiny_recipe.kill(number)
    assert not (out / "trials.csv").exists()
    loaded = load_recipe(recipe, overrides=[every_step])
    lines = []

    def note(name, text):
        lines.append(f"{name}: {text}")
        if name == "confirm 2/6":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(loaded, runs=folder / "runs", folder=out, report=note)
    output = invoke(*arguments)
    assert "trial 2: was cut off and goes on" in " ".join(lines)
    assert "confirm 2/6" not in output
    assert "confirm 3/6" in output
    assert read_trials(out) == read_trials(tuned(space))[:4]
    assert (out / "report.md").read_text(encoding="utf-8") == space[4]


def test_a_search_without_the_key_shows_how_to_write_it(space, tmp_path):
    recipe = make_recipe(tmp_path, space[1], tune=None)
    message = invoke("tune", recipe, code=1)
    assert "RecipeError" in message
    snippet = message[message.index("tune:\n  stage: student") :]
    assert yaml.safe_load(snippet)["tune"]["search"]["objective.temperature"]["high"] == 3.0


@pytest.mark.parametrize(
    ("tune", "words", "line"),
    [
        ({"trails": 3}, "unknown key 'trails'", "  trails:"),
        ({"stage": "teacher"}, "'teacher' is no distill entry; there are: student", "  stage: tea"),
        (
            {"search": {"objective.temprature": {"low": 1, "high": 2}}},
            "no key 'temprature' in objective: did you mean 'temperature'?",
            "temprature",
        ),
        (
            {"search": {"objective.weight": {"low": 0.5, "high": 1.5}}},
            "value 1.5 is refused",
            "objective.weight",
        ),
        ({"search": {"objective.weight": {"low": 2, "high": 1}}}, "must be below", "low"),
        ({"search": {"objective.divergence": {"low": 1, "high": 2}}}, "no number", "divergence"),
        (
            {"search": {"objective.matching.*.weight": {"low": 1, "high": 2}}},
            "a list of 0",
            "matching",
        ),
        (
            {"search": {"training.learning_rate": {"choices": [1, 1]}}},
            "are the same",
            "training.learning_rate",
        ),
        (
            {"pruner": {"kind": "halve"}},
            "unknown pruner 'halve': did you mean 'halving'?",
            "pruner",
        ),
        ({"budget": {"max_mib": 0}}, "greater than 0", "max_mib"),
        ({"confirm": {"seeds": 2}}, "greater than or equal to 3", "seeds"),
        (
            {"search": SEARCH, "start_from": [{"objective.temperature": 9.0}]},
            "9.0 of objective.temperature lies outside its space: 1.5 to 3.0",
            "start_from",
        ),
        (
            {"search": SEARCH, "start_from": [{"objective.weight": 0.5}]},
            "'objective.weight' is not searched; searched are: objective.temperature",
            "start_from",
        ),
    ],
)
def test_a_wrong_search_is_refused_with_its_line_before_anything_runs(
    space, tmp_path, tune, words, line
):
    recipe = make_recipe(tmp_path, space[1], tune=tune)
    lines = recipe.read_text().splitlines()
    place = max(index for index, text in enumerate(lines, start=1) if line in text)
    for command in ("tune", "check"):
        message = " ".join(invoke(command, recipe, code=1).split())
        assert words in message
        assert re.search(rf"line ({place - 1}|{place}):", message), message
    assert not (tmp_path / "runs").exists()


def test_when_all_trials_fail_each_is_named_with_its_reason(space, tmp_path):
    recipe = make_recipe(
        tmp_path,
        space[1],
        tune={"search": {"training.learning_rate": {"choices": [1e30, 1e31]}}, "trials": 2},
        training={"max_steps": 2, "learning_rate": 1e30, "warmup_steps": 0},
    )
    out = tmp_path / "out"
    message = invoke("tune", recipe, "--runs", space[0] / "runs", "--out", out, code=1)
    message = " ".join(message.split())
    assert "TuningError" in message
    for number in range(2):
        assert f"trial {number}: TrainingError" in message
    assert [line["state"] for line in read_trials(out)] == ["failed", "failed"]
    assert not (out / "winning.yaml").exists()


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"max_parameters": 100}, "parameters exceed the budget"),
        ({"max_latency_ms": 2}, "over the budget: latency_ms by 50.0%"),
    ],
)
def test_what_exceeds_the_budget_never_wins(space, tmp_path, monkeypatch, budget, words):
    monkeypatch.setattr(scoring, "measure_latency", lambda *given, **named: 3.0)
    tune = {"search": SEARCH, "trials": 1, "metric": "likelihood", "budget": budget}
    recipe = make_recipe(tmp_path, space[1], tune=tune)
    out = tmp_path / "out"
    message = invoke("tune", recipe, "--runs", space[0] / "runs", "--out", out, code=1)
    assert words in " ".join(message.split())
    (trial,) = read_trials(out)
    assert trial["within_budget"] == "no"


@pytest.mark.parametrize("split", ["train", "test", "recall"])
def test_what_guides_a_search_stands_nowhere_else(tmp_path, split):
    corpus = make_corpus(tmp_path / "corpus")
    held_out = read_held_out(Corpus(corpus), max_questions=5)
    assert len(held_out) == 5
    assert {item.id[1:] for item in held_out} <= set(NAMES[2::3])
    shared = make_records(NAMES[2::3])
    path = corpus / "records" / f"{split}.jsonl"
    if split == "recall":
        path = corpus / "questions" / "recall.jsonl"
        shared = [Question("q", "recall", item.question, ("内科",), "single") for item in shared]
    write_jsonl(path, shared)
    with pytest.raises(LeakError, match="is held out"):
        read_held_out(Corpus(corpus), max_questions=5)


def test_a_teacher_that_cannot_be_asked_is_refused_with_what_to_set(tmp_path):
    gone = Parent(name="t", path=str(tmp_path / "gone"), kind="checkpoint", content_hash="h")
    lost = {"teacher": (gone,)}
    for given in (
        {"teacher": artifacts.make_artifact(tmp_path / "bare", "signals")},
        {"teacher": artifacts.make_artifact(tmp_path / "lost", "signals", parents=lost)},
        {"teacher": artifacts.make_artifact(tmp_path / "corpus", "corpus")},
        {},
    ):
        with pytest.raises(TuningError, match="set `metric: likelihood`"):
            scoring.find_teacher(given)
