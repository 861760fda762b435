"""What a search found: its trials, the runs that confirm the best of them, and the verdict.

Trials choose candidates and nothing more. Whether one is better than the recipe's own settings is
decided by runs with fresh seeds alone, so that having picked the best of many flatters nobody, and
over all candidates together by Holm's correction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from limbeck.contracts.errors import TuningError
from limbeck.contracts.recipe import Recipe
from limbeck.tuning.comparison import LEVEL, Difference, adjust_holm, paired_difference
from limbeck.tuning.config import Tuning
from limbeck.tuning.fidelity import Rung, measure_rungs
from limbeck.tuning.scoring import Scores
from limbeck.tuning.space import Space

START = "start"
"""A trial's attribute: its place among what is tried first; 0 is the recipe's own settings."""
SCORES = "scores"
MEASURED = "measured"
FEWEST_SEEDS = 3
"""Intervals of fewer are too narrow: they miss the truth in up to 9 of 100 cases."""
OutcomeKind = Literal["better", "none_better", "unfinished", "unstable", "no_reference", "nothing"]


@dataclass(frozen=True)
class ConfirmingRun:
    """A trial's settings, trained again with other seeds."""

    trial: int
    shift: int
    """What was added to each of the recipe's seeds."""
    value: float | None
    """As the search measures it; None for a run that failed."""
    scores: Scores | None
    seconds: float
    reason: str = ""
    """Why it failed."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ConfirmingRun":
        """A run that a study holds."""
        scores = value["scores"]
        return cls(**{**value, "scores": None if scores is None else Scores.from_json(scores)})


@dataclass(frozen=True)
class Comparison:
    """A candidate against the recipe's own settings, over the fresh seeds of both."""

    trial: int
    difference: Difference | None
    """None where the candidate failed with one of them."""
    num_seeds: int
    adjusted_p: float
    """Holm's, over every candidate that was ever confirmed in this study."""

    @property
    def better(self) -> bool:
        """Whether it is shown to be better."""
        return self.difference is not None and self.difference.value > 0 and self.adjusted_p < LEVEL


@dataclass(frozen=True)
class SearchVerdict:
    """What to use, and why.

    `better`: a setting is shown to be. `none_better`: none is, so the recipe's own stay.
    `unfinished`: trials or confirming runs are missing. `unstable`: the recipe's own settings fail
    with fresh seeds. `no_reference`: they failed or exceed the budget, so the best trial within it
    is proposed without a comparison. `nothing`: no trial is left.
    """

    kind: OutcomeKind
    recommended: FrozenTrial | None
    comparisons: tuple[Comparison, ...] = ()

    @property
    def changes_recipe(self) -> bool:
        """Whether another recipe than the searched one is recommended."""
        return self.kind in ("better", "no_reference")


@dataclass(frozen=True)
class Search:
    """A finished or stopped search."""

    recipe: Recipe
    tuning: Tuning
    space: Space
    trials: tuple[FrozenTrial, ...]
    """Every trial that has ended."""
    runs: tuple[ConfirmingRun, ...]
    folder: Path
    teacher_accuracy: float
    """On the validation questions; 0 where the likelihood decides."""
    num_questions: int
    complete: bool
    """Whether as many trials have ended as were to."""

    @property
    def default(self) -> FrozenTrial | None:
        """The trial of the recipe's own settings."""
        return find_default(self.trials)

    @property
    def best(self) -> FrozenTrial | None:
        """The trial of highest score within the budget, which may be so by chance."""
        return find_best(self.trials)

    @cached_property
    def differences(self) -> dict[int, Difference]:
        """Of every finished trial, what its score is above the default's, by its number."""
        return compare_trials(self.trials)

    @cached_property
    def rungs(self) -> tuple[Rung, ...]:
        """How well rungs tell the end."""
        return measure_rungs(self.trials, tuning=self.tuning)

    @cached_property
    def verdict(self) -> SearchVerdict:
        """What to use, and why."""
        return decide(self.trials, self.runs, tuning=self.tuning, complete=self.complete)


def find_default(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The trial of the recipe's own settings; None before it has ended."""
    return next((trial for trial in trials if trial.user_attrs.get(START) == 0), None)


def find_best(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The finished trial of highest value within the budget, the earliest of equals."""
    return max(filter(is_usable, trials), key=_rank, default=None)


def is_usable(trial: FrozenTrial) -> bool:
    """Whether a trial finished and keeps to the budget."""
    return trial.state == TrialState.COMPLETE and fits(trial)


def fits(trial: FrozenTrial) -> bool:
    """Whether a trial keeps to every bound that was measured."""
    return all(excess <= 0 for excess in trial.constraints.values())


def _rank(trial: FrozenTrial) -> tuple[float, int]:
    return (float(trial.value or 0.0), -trial.number)


def compare_trials(trials: Sequence[FrozenTrial]) -> dict[int, Difference]:
    """Every finished trial minus the default, paired by question; empty without a default.

    One seed each: the intervals know nothing of what another seed would give.
    """
    default = find_default(trials)
    if default is None or default.state != TrialState.COMPLETE:
        return {}
    return {
        trial.number: compare([read_scores(trial)], reference=[read_scores(default)])
        for trial in trials
        if trial.state == TrialState.COMPLETE and trial.number != default.number
    }


def read_scores(trial: FrozenTrial) -> Scores:
    """What a finished trial scored."""
    return Scores.from_json(trial.user_attrs[SCORES])


def compare(scores: Sequence[Scores], *, reference: Sequence[Scores]) -> Difference:
    """Runs minus the reference's, seed by seed over the same questions."""
    first = reference[0]
    alike = {(item.sizes, item.groups) for item in (*scores, *reference)}
    assert len(alike) == 1, "scores of different questions"
    return paired_difference(
        scores=np.array([item.values for item in scores]),
        reference=np.array([item.values for item in reference]),
        sizes=np.array(first.sizes),
        groups=first.groups,
    )


def find_candidates(trials: Sequence[FrozenTrial], *, most: int) -> list[FrozenTrial]:
    """The best usable trials of other settings than the default's, each settings once.

    One that its own questions show to be worse than the default is none.
    """
    default = find_default(trials)
    if default is None or not is_usable(default):
        return []
    differences = compare_trials(trials)
    found: list[FrozenTrial] = []
    for trial in sorted(filter(is_usable, trials), key=_rank, reverse=True):
        known = [default.params, *(item.params for item in found)]
        if trial.params not in known and differences[trial.number].high > 0 and len(found) < most:
            found.append(trial)
    return found


def decide(
    trials: Sequence[FrozenTrial],
    runs: Sequence[ConfirmingRun],
    *,
    tuning: Tuning,
    complete: bool,
) -> SearchVerdict:
    """The verdict of a search."""
    default = find_default(trials)
    if default is None or not is_usable(default):
        best = find_best(trials)
        if default is None and not complete:
            return SearchVerdict("unfinished", best)
        return SearchVerdict("nothing" if best is None else "no_reference", best)
    by_trial: dict[int, dict[int, ConfirmingRun]] = {}
    for run in runs:
        by_trial.setdefault(run.trial, {})[run.shift] = run
    candidates = find_candidates(trials, most=tuning.confirm.candidates)
    wanted = [default, *candidates] if candidates else []
    if not complete or any(
        len(by_trial.get(trial.number, {})) < tuning.confirm.seeds for trial in wanted
    ):
        return SearchVerdict("unfinished", default)
    references = by_trial.pop(default.number, {})
    shifts = [shift for shift, run in sorted(references.items()) if run.scores is not None]
    if wanted and len(shifts) < FEWEST_SEEDS:
        return SearchVerdict("unstable", default)
    comparisons = _compare_runs(
        {number: found for number, found in by_trial.items() if set(shifts) <= set(found)},
        references=references,
        shifts=shifts,
    )
    winners = [item for item in comparisons if item.better]
    if not winners:
        return SearchVerdict("none_better", default, comparisons)
    number = max(winners, key=_gain).trial
    winner = next(trial for trial in trials if trial.number == number)
    return SearchVerdict("better", winner, comparisons)


def _compare_runs(
    confirmed: Mapping[int, Mapping[int, ConfirmingRun]],
    *,
    references: Mapping[int, ConfirmingRun],
    shifts: Sequence[int],
) -> tuple[Comparison, ...]:
    found: dict[int, Difference | None] = {}
    for number, runs in sorted(confirmed.items()):
        scores = [run.scores for shift in shifts if (run := runs[shift]).scores is not None]
        reference = [run.scores for shift in shifts if (run := references[shift]).scores]
        whole = len(scores) == len(shifts)
        found[number] = compare(scores, reference=reference) if whole else None
    raw = [1.0 if item is None else item.p for item in found.values()]
    adjusted = dict(zip(found, adjust_holm(raw), strict=True))
    return tuple(
        Comparison(number, item, len(shifts), adjusted[number]) for number, item in found.items()
    )


def _gain(item: Comparison) -> float:
    assert item.difference is not None
    return item.difference.value


def check_outcome(found: Search) -> None:
    """Nothing, when settings can be recommended: a trial's, or the recipe's own.

    Raises:
        TuningError: all failed, were stopped, or cost too much, with their reasons.
    """
    if found.verdict.kind != "nothing" or not found.trials:
        return
    lines = [
        f"  trial {trial.number}: {trial.user_attrs.get('reason') or over(trial)}"
        for trial in found.trials
    ]
    raise TuningError(
        f"none of {len(found.trials)} trials gave a student within the budget; change tune.search "
        "or tune.budget:\n" + "\n".join(lines)
    )


def over(trial: FrozenTrial) -> str:
    """By how much a trial exceeds each bound."""
    items = [f"{name} by {excess:.1%}" for name, excess in trial.constraints.items() if excess > 0]
    return f"over the budget: {', '.join(items)}" if items else ""


def describe(value: float | None, tuning: Tuning) -> str:
    """A trial's value for people."""
    if value is None:
        return "-"
    if tuning.metric == "kept_accuracy":
        return f"kept {value:.1%}"
    return f"log-likelihood {value:.4f}"
