"""Whether a trial's score at a rung tells how it ends: rank correlations over finished trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

from limbeck.tuning.comparison import RankCorrelation, correlate_ranks
from limbeck.tuning.config import Tuning

FEWEST = 5
"""Ranks of fewer trials tell nothing."""
LEAST = 0.5
"""A Spearman correlation below it is too low to stop trials by."""


@dataclass(frozen=True)
class Rung:
    """One place of the training, and how trials' likelihood there orders their final scores."""

    share: float
    """Of the steps; 1 is the likelihood of the finished student."""
    num_trials: int
    correlation: RankCorrelation | None
    """None where too few trials tell."""

    @property
    def outcome(self) -> Literal["unknown", "low", "unclear", "shown"]:
        """What the correlation says: not known, below the least, perhaps zero, or above zero."""
        if self.correlation is None:
            return "unknown"
        if self.correlation.spearman < LEAST:
            return "low"
        return "unclear" if self.correlation.low <= 0 else "shown"


def runs_to_end(index: int, *, ratio: float) -> bool:
    """Whether trial `index` ends whatever its rungs say: the first, then evenly so many."""
    return int((index + 1) * ratio) > int(index * ratio) or index == 0


def measure_rungs(trials: Sequence[FrozenTrial], *, tuning: Tuning) -> tuple[Rung, ...]:
    """Every rung's rank correlation with the final score, over the trials that ran to the end.

    Those that a rung let pass are among them, so the correlation is rather too low than too high.
    """
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pruner = tuning.pruner
    found = []
    for mark, share in zip(pruner.marks(), pruner.rungs(), strict=True):
        known = [trial for trial in done if mark in trial.intermediate_values]
        found.append(
            _rung(share, known, [float(trial.intermediate_values[mark]) for trial in known])
        )
    if found and tuning.metric != "likelihood":
        ends = [trial.user_attrs["measured"]["log_likelihood"] for trial in done]
        found.append(_rung(1.0, done, ends))
    return tuple(found)


def _rung(share: float, trials: Sequence[FrozenTrial], early: Sequence[float]) -> Rung:
    final = [float(trial.value or 0.0) for trial in trials]
    return Rung(share, len(trials), correlate_ranks(early, final=final, fewest=FEWEST))
