"""The verdict of a search: what may win, and how often chance does."""

import numpy as np
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from limbeck.tuning.config import Tuning
from limbeck.tuning.fidelity import measure_rungs, runs_to_end
from limbeck.tuning.outcome import ConfirmingRun, decide, find_candidates
from limbeck.tuning.scoring import Scores

TUNING = Tuning(stage="student", confirm={"candidates": 2, "seeds": 3})
AXIS = {"x": FloatDistribution(0, 1000)}
GROUPS = tuple(f"g{index}" for index in range(60))


def make_scores(values):
    return Scores(tuple(map(float, values)), (1.0,) * len(values), GROUPS[: len(values)])


def make_trial(number, values, *, excess=0.0, state=TrialState.COMPLETE, setting=None, **looked):
    scores = make_scores(values)
    value = float(np.mean(values))
    trial = create_trial(
        state=state,
        value=value if state == TrialState.COMPLETE else None,
        params={"x": float(number if setting is None else setting)},
        distributions=AXIS,
        user_attrs={"scores": scores.to_json(), "measured": {"log_likelihood": value}}
        | ({"start": 0} if number == 0 else {"reason": "failed"}),
        intermediate_values={int(key[1:]): item for key, item in looked.items()},
        constraints={"mib": excess},
    )
    trial.number = number
    return trial


def make_runs(number, rows):
    return [
        ConfirmingRun(number, shift, None if row is None else float(np.mean(row)), None, 1.0, "x")
        if row is None
        else ConfirmingRun(number, shift, float(np.mean(row)), make_scores(row), 1.0)
        for shift, row in enumerate(rows, start=1)
    ]


def first(count):
    """Answers of which so many are right."""
    return [1.0] * count + [0.0] * (60 - count)


def judge(trials, runs, *, complete=True):
    return decide(trials, runs, tuning=TUNING, complete=complete)


TRIALS = [make_trial(0, first(30)), make_trial(1, first(40)), make_trial(2, first(35))]


def test_a_gain_that_fresh_seeds_repeat_wins():
    runs = [*make_runs(0, [first(30)] * 3), *make_runs(1, [first(45), first(44), first(46)])]
    runs += make_runs(2, [first(30), first(29), first(31)])
    found = judge(TRIALS, runs)
    assert (found.kind, found.recommended.number) == ("better", 1)
    assert [item.better for item in found.comparisons] == [True, False]
    assert found.comparisons[0].difference.value == pytest.approx(0.25)
    assert found.changes_recipe


def test_the_scores_that_picked_a_setting_do_not_count():
    runs = [run for number in range(3) for run in make_runs(number, [first(30)] * 3)]
    found = judge(TRIALS, runs)
    assert (found.kind, found.recommended.number) == ("none_better", 0)
    assert not found.changes_recipe


def test_missing_trials_or_runs_leave_the_verdict_open():
    runs = [run for number in range(3) for run in make_runs(number, [first(30)] * 3)]
    assert judge(TRIALS, runs[:-1]).kind == "unfinished"
    assert judge(TRIALS, runs, complete=False).kind == "unfinished"
    assert judge([], [], complete=False).kind == "unfinished"
    assert judge(TRIALS[:1], []).kind == "none_better"


def test_a_run_that_fails_counts_against_its_setting():
    runs = [*make_runs(0, [first(30)] * 3), *make_runs(2, [first(30)] * 3)]
    runs += make_runs(1, [first(60), None, first(60)])
    found = judge(TRIALS, runs)
    assert found.kind == "none_better"
    assert found.comparisons[0].difference is None
    failed = [run for number in (1, 2) for run in make_runs(number, [first(60)] * 3)]
    assert judge(TRIALS, [*make_runs(0, [first(30), None, None]), *failed]).kind == "unstable"


def test_without_a_default_in_the_budget_the_best_is_proposed_unconfirmed():
    over = make_trial(0, first(50), excess=0.1)
    found = judge([over, *TRIALS[1:]], [])
    assert (found.kind, found.recommended.number) == ("no_reference", 1)
    assert judge([over], []).kind == "nothing"
    stopped = make_trial(0, first(50), state=TrialState.FAIL)
    assert judge([stopped, *TRIALS[1:]], []).recommended.number == 1


def test_candidates_are_other_settings_that_are_not_shown_to_be_worse():
    trials = [
        *TRIALS,
        make_trial(3, first(40), setting=1),  # the settings of trial 1
        make_trial(4, first(50), setting=0),  # the default's
        make_trial(5, first(55), excess=0.2),
        make_trial(6, first(5)),
    ]
    assert [item.number for item in find_candidates(trials, most=5)] == [1, 2]
    assert [item.number for item in find_candidates(trials, most=1)] == [1]


def test_the_best_of_many_equal_settings_wins_at_most_once_in_twenty():
    """Every setting is the same, each answer a coin that depends on question and seed."""
    rng = np.random.default_rng(0)
    wins = 0
    for _ in range(60):
        level = rng.uniform(0.2, 0.8, size=60)
        rows = (rng.random((13, 60)) < level).astype(float)
        trials = [make_trial(number, row) for number, row in enumerate(rows[:4])]
        numbers = [0, *(item.number for item in find_candidates(trials, most=2))]
        places = [slice(4, 7), slice(7, 10), slice(10, 13)]
        found = zip(numbers, places, strict=False)
        runs = [run for number, place in found for run in make_runs(number, rows[place])]
        wins += judge(trials, runs).kind == "better"
    assert wins <= 60 * 0.05


def test_so_many_trials_run_to_the_end_evenly():
    assert [index for index in range(12) if runs_to_end(index, ratio=0.25)] == [0, 3, 7, 11]
    assert all(runs_to_end(index, ratio=1.0) for index in range(5))
    assert [index for index in range(9) if runs_to_end(index, ratio=0.0)] == [0]


@pytest.mark.parametrize(("order", "outcome"), [(1, "shown"), (-1, "low")])
def test_rungs_are_held_against_the_ends_of_what_ran_there(order, outcome):
    tuning = TUNING.replace(pruner={"kind": "median", "num_rungs": 1})
    trials = [make_trial(index, first(10 + index), m1=order * index) for index in range(8)]
    trials.append(make_trial(8, first(1), state=TrialState.PRUNED, m1=-9))
    early, end = measure_rungs(trials, tuning=tuning)
    assert (early.share, early.num_trials, early.outcome) == (0.5, 8, outcome)
    assert early.correlation.spearman == pytest.approx(order)
    assert (end.share, end.correlation.spearman) == (1.0, pytest.approx(1))
    assert measure_rungs(trials[:3], tuning=tuning)[0].outcome == "unknown"
    assert measure_rungs(trials, tuning=TUNING.replace(pruner={"kind": "none"})) == ()
