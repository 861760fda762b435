"""The best settings and the recipe's own, trained again with fresh seeds."""

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from optuna.study import Study
from optuna.trial import FrozenTrial

from limbeck.contracts.errors import LimbeckError
from limbeck.pipeline.run import ReportStatus
from limbeck.tuning.config import Tuning
from limbeck.tuning.outcome import ConfirmingRun, describe
from limbeck.tuning.scoring import MeasuredStudent

KEY = "confirm"
Train = Callable[[FrozenTrial, int, Path], MeasuredStudent]
"""Trains a trial's settings with shifted seeds in a folder."""


def read_runs(study: Study) -> tuple[ConfirmingRun, ...]:
    """Every run that has ended, by seed and trial."""
    found = [
        ConfirmingRun.from_json(value)
        for name, value in study.user_attrs.items()
        if name.startswith(f"{KEY}:")
    ]
    return tuple(sorted(found, key=lambda run: (run.shift, run.trial)))


def confirm(
    study: Study,
    *,
    trials: Sequence[FrozenTrial],
    tuning: Tuning,
    train: Train,
    folder: Path,
    is_over: Callable[[], bool],
    report: ReportStatus,
) -> None:
    """Every run that is missing, seed by seed; a run that was cut off goes on in its folder."""
    wanted = [(shift, item) for shift in range(1, tuning.confirm.seeds + 1) for item in trials]
    for index, (shift, trial) in enumerate(wanted):
        key = f"{KEY}:{trial.number}:{shift}"
        place = folder / f"{KEY}-{trial.number:04d}-{shift}"
        if key not in study.user_attrs:
            if is_over():
                report("tune", f"time is over after {index} of {len(wanted)} confirming runs")
                return
            run = _run(trial, shift, place, train=train)
            study.set_user_attr(key, dataclasses.asdict(run))
            outcome = f"failed: {run.reason}" if run.reason else describe(run.value, tuning)
            report(
                f"confirm {index + 1}/{len(wanted)}",
                f"trial {trial.number}, seed +{shift}: {outcome} in {run.seconds:,.1f} s",
            )
        shutil.rmtree(place, ignore_errors=True)


def _run(trial: FrozenTrial, shift: int, place: Path, *, train: Train) -> ConfirmingRun:
    started = time.monotonic()
    try:
        found = train(trial, shift, place)
    except (LimbeckError, torch.OutOfMemoryError, MemoryError) as error:
        reason = f"{type(error).__name__}: {error}"[:2000]
        return ConfirmingRun(trial.number, shift, None, None, time.monotonic() - started, reason)
    value = float(found.figures["value"])
    return ConfirmingRun(trial.number, shift, value, found.scores, time.monotonic() - started)
