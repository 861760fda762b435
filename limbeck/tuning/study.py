"""Running trials of a search: one study in SQLite that goes on where it was stopped.

Trial `n` is sampled from the trials before it and a seed of its own, so a search that was stopped
goes on as if it had not been.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

import limbeck
from limbeck.contracts.artifacts import Artifact, OnStep, hash_text, ignore_step
from limbeck.contracts.errors import BusyError, LaunchError, LimbeckError
from limbeck.contracts.recipe import Recipe
from limbeck.env.ranks import num_processes
from limbeck.pipeline.check import check as check_recipe
from limbeck.pipeline.run import ReportStatus, make_needed, open_external
from limbeck.pipeline.run import run as run_recipe
from limbeck.tuning.config import Tuning
from limbeck.tuning.confirmation import confirm, read_runs
from limbeck.tuning.fidelity import runs_to_end
from limbeck.tuning.outcome import (
    MEASURED,
    SCORES,
    START,
    Search,
    describe,
    find_best,
    find_candidates,
    find_default,
)
from limbeck.tuning.scoring import MeasuredStudent, Number, TrialScorer, make_scorer
from limbeck.tuning.space import Space, make_space, name_folders, read_tuning

DATABASE = "study.db"
STARTUP_TRIALS = 8
"""So many trials are drawn at random before the others are drawn near the good ones."""
TO_END = "to_end"
"""A trial's attribute: whether no rung stops it."""


class PrunedError(Exception):
    """Raised into a training that is not worth going on; never seen outside."""


def search(
    recipe: Recipe,
    *,
    runs: Path,
    folder: Path,
    trials: int = 0,
    timeout_seconds: float = 0.0,
    report: ReportStatus = lambda name, text: None,
) -> Search:
    """Run a recipe's search to its number of trials; 0 leaves that number to the recipe.

    Raises:
        RecipeError: the recipe or its space is wrong.
        BusyError: another search is at work in the folder.
    """
    if num_processes() > 1:
        raise LaunchError("`limbeck tune` runs its trials one by one; start it without a launcher")
    entries = check_recipe(recipe)
    tuning = read_tuning(recipe)
    space = make_space(recipe, tuning, entries)
    made = make_needed(recipe, entries, names=space.needed, runs=runs, report=report)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            runner = _Runner(recipe, tuning, space, made, folder, report)
            return runner.run(trials or tuning.trials, timeout_seconds=timeout_seconds)
    except Timeout:
        raise BusyError(f"{folder}: another `limbeck tune` is at work there; wait for it") from None


class _Runner:
    """Everything that the trials of one search share."""

    def __init__(
        self,
        recipe: Recipe,
        tuning: Tuning,
        space: Space,
        made: Mapping[str, Artifact],
        folder: Path,
        report: ReportStatus,
    ) -> None:
        self.recipe, self.tuning, self.space, self.made = recipe, tuning, space, made
        self.folder, self.report = folder, report
        self.config: Any = space.entry.config
        self.inputs = self._inputs()
        self.scorer: TrialScorer = make_scorer(
            tuning,
            inputs=self.inputs,
            batching=self.config.batching,
            state=folder / "answers",
        )
        self.name = f"{space.entry.name}-{self._key()[:12]}"
        self.work_dir = folder / "trials" / self.name
        self.sized = -1
        """The trial whose model was compared with the budget last."""

    def _inputs(self) -> dict[str, Artifact]:
        """Artifacts of the entry's own references, by field; the first of several."""
        found: dict[str, Artifact] = {}
        for item in self.space.entry.references:
            if item.field not in found:
                made = self.made.get(item.target)
                found[item.field] = made or open_external(item)
        return found

    def _key(self) -> str:
        """Hash of all that makes trials comparable: a changed recipe has a study of its own."""
        named = {**self.inputs, **self.made}
        hashes = {name: artifact.manifest.content_hash for name, artifact in named.items()}
        tuning = self.tuning.model_dump(mode="json", exclude={"trials"})
        value = [
            limbeck.__version__,
            self.config.model_dump(mode="json"),
            hashes,
            tuning,
            {path: repr(item) for path, item in self.space.distributions.items()},
        ]
        return hash_text(json.dumps(value, sort_keys=True))

    def run(self, num_trials: int, *, timeout_seconds: float) -> Search:
        """Trials until there are enough of them, or the time is over."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = optuna.storages.RDBStorage(f"sqlite:///{(self.folder / DATABASE).resolve()}")
        started = time.monotonic()

        def is_over() -> bool:
            return bool(timeout_seconds) and time.monotonic() - started > timeout_seconds

        try:
            study = optuna.create_study(
                storage=storage,
                study_name=self.name,
                direction="maximize",
                load_if_exists=True,
                pruner=self.tuning.pruner.build(),
            )
            others = len(optuna.get_all_study_names(storage)) - 1
            if others and not study.trials:
                self.report("tune", "a new study: the recipe has changed since the last one")
            self._enqueue(study)
            while (index := len(_counted(study))) < num_trials:
                if is_over():
                    self.report("tune", f"time is over after {index} of {num_trials} trials")
                    break
                self._run_one(study, index=index, num_trials=num_trials)
            else:
                self._confirm(study, is_over=is_over)
            trials = tuple(_counted(study))
            found = Search(
                self.recipe,
                self.tuning,
                self.space,
                trials,
                read_runs(study),
                self.folder,
                sum(item.correct for item in self.scorer.teacher)
                / max(1, len(self.scorer.teacher)),
                len(self.scorer.questions),
                complete=len(trials) >= num_trials,
            )
        finally:
            storage.remove_session()
            storage.engine.dispose()
        return found

    def _enqueue(self, study: Study) -> None:
        """What is tried before the sampler chooses, each once."""
        cut = [item for item in study.trials if item.state == TrialState.FAIL and _is_cut(item)]
        gone = {item.number for item in cut}
        known = {item.user_attrs.get(START) for item in study.trials if item.number not in gone}
        for index, params in enumerate(self.space.starts):
            if index not in known:
                study.enqueue_trial(dict(params), user_attrs={START: index})

    def _confirm(self, study: Study, *, is_over: Callable[[], bool]) -> None:
        """Train the default and the candidates again, where there is one to confirm."""
        trials = _counted(study)
        default = find_default(trials)
        candidates = find_candidates(trials, most=self.tuning.confirm.candidates)
        if default is not None and candidates:
            confirm(
                study,
                trials=[default, *candidates],
                tuning=self.tuning,
                train=self._train_again,
                folder=self.work_dir,
                is_over=is_over,
                report=self.report,
            )

    def _run_one(self, study: Study, *, index: int, num_trials: int) -> None:
        trial = self._begin(study, index=index)
        if trial is None:
            return
        started = time.monotonic()
        folder = self.work_dir / f"{trial.number:04d}"
        try:
            measured = self._train(trial, folder)
        except PrunedError as error:
            trial.set_user_attr("reason", str(error))
            study.tell(trial, state=TrialState.PRUNED)
            outcome = str(error)
        except (LimbeckError, torch.OutOfMemoryError, MemoryError) as error:
            trial.set_user_attr("reason", f"{type(error).__name__}: {error}"[:2000])
            study.tell(trial, state=TrialState.FAIL)
            outcome = f"failed: {trial.user_attrs['reason']}"
        else:
            self._note_excess(trial, measured.figures)
            trial.set_user_attr(MEASURED, measured.figures)
            trial.set_user_attr(SCORES, measured.scores.to_json())
            study.tell(trial, measured.figures["value"])
            outcome = f"{describe(measured.figures['value'], self.tuning)}"
            if any(excess > 0 for excess in trial.constraints.values()):
                outcome += ", over the budget"
        trials = _counted(study)
        self._clear(trials)
        best = find_best(trials)
        lead = f"; best {describe(best.value, self.tuning)} (trial {best.number})" if best else ""
        seconds = time.monotonic() - started
        self.report(f"trial {index + 1}/{num_trials}", f"{outcome} in {seconds:,.1f} s{lead}")

    def _begin(self, study: Study, *, index: int) -> Trial | None:
        """The trial that was cut off, or a new one; None where a cut left too little of it."""
        seed = int(hash_text(f"{self.tuning.seed}:{index}")[:8], 16)
        study.sampler = TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
        cut = [item for item in study.trials if item.state == TrialState.RUNNING]
        if not cut:
            waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            trial = study.ask(fixed_distributions=self._distributions(waiting[:1]))
        elif set(cut[0].params) == set(self._distributions(cut)):
            self.report(f"trial {index + 1}", "was cut off and goes on")
            trial = Trial(study, cut[0]._trial_id)
        else:
            study.tell(cut[0].number, state=TrialState.FAIL)
            self._enqueue(study)
            return None
        whole = is_default(trial) or runs_to_end(index, ratio=self.tuning.to_end_ratio)
        trial.set_user_attr(TO_END, whole)
        return trial

    def _distributions(self, trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
        """What the first of them samples: of the default, only what the space can say of it."""
        if trials and is_default(trials[0]):
            own = self.space.starts[0]
            return {path: self.space.distributions[path] for path in own}
        return self.space.distributions

    def _train(self, trial: Trial, folder: Path) -> MeasuredStudent:
        """Train a trial's student and measure it.

        Raises:
            PrunedError: it is stopped early.
        """
        default = is_default(trial)
        entry = dict(self.space.written) if default else self.space.apply(trial.params)
        config, recipe = self._make_recipe(entry)
        student = self._run(
            recipe, folder, on_step=lambda *step: self._on_step(trial, config, *step)
        )
        return self.scorer.measure(student, state=folder / "answers")

    def _train_again(self, trial: FrozenTrial, shift: int, folder: Path) -> MeasuredStudent:
        """Train a trial's settings with other seeds to the end."""
        params = None if is_default(trial) else trial.params
        _, recipe = self._make_recipe(self.space.reseed(params, shift=shift))
        student = self._run(recipe, folder)
        return self.scorer.score(student, state=folder / "answers")

    def _make_recipe(self, entry: dict[str, Any]) -> tuple[Any, Recipe]:
        """The entry's config, and a recipe of it alone."""
        name = self.space.entry.name
        fields = {item.field for item in self.space.entry.references} | {"student"}
        alone = name_folders(entry, fields=fields, made=self.made)
        recipe = dataclasses.replace(
            self.recipe, name="trial", entries={name: alone}, plan={}, tune={}
        )
        return check_recipe(recipe)[name].config, recipe

    def _run(self, recipe: Recipe, folder: Path, *, on_step: OnStep = ignore_step) -> Artifact:
        return run_recipe(recipe, runs=folder, on_step=on_step)[self.space.entry.name]

    def _on_step(self, trial: Trial, config: Any, done: int, steps: int, model: Any) -> None:
        """After a step: note the likelihood at a rung, and stop what is too large or hopeless."""
        if self.sized != trial.number:
            self.sized = trial.number
            found = {"parameters": self.scorer.parameters(model)}
            if any(excess > 0 for excess in self.scorer.excess(found).values()):
                self._note_excess(trial, found)
                trial.set_user_attr(MEASURED, found)
                raise PrunedError(f"stopped: {found['parameters']:,} parameters exceed the budget")
        pruner = self.tuning.pruner
        at = [max(1, int(share * steps)) for share in pruner.rungs()]
        for mark, step in zip(pruner.marks(), at, strict=True):
            if step == done and step < steps:
                known = trial.study.trials[trial.number].intermediate_values
                if mark not in known:
                    value = self.scorer.measure_running(model, config, inputs=self.inputs)
                    trial.report(value, mark)
                if trial.should_prune() and not trial.user_attrs[TO_END]:
                    raise PrunedError(f"stopped after {done} of {steps} steps")

    def _note_excess(self, trial: Trial, found: Mapping[str, Number]) -> None:
        for name, excess in self.scorer.excess(found).items():
            if name not in trial.constraints:
                trial.set_constraint(name, excess)

    def _clear(self, trials: Sequence[FrozenTrial]) -> None:
        """Keep the checkpoints that may be recommended; every figure stands in the study."""
        likely = [find_default(trials), find_best(trials)]
        likely += find_candidates(trials, most=self.tuning.confirm.candidates)
        kept = {f"{trial.number:04d}" for trial in likely if trial is not None}
        for path in self.work_dir.glob("*"):
            if path.name not in kept:
                shutil.rmtree(path)


def is_default(trial: Trial | FrozenTrial) -> bool:
    """Whether a trial trains the recipe's own settings."""
    return trial.user_attrs.get(START) == 0


def _counted(study: Study) -> list[FrozenTrial]:
    """Trials that have ended; one that was cut off before it had its values does not count."""
    return [
        trial
        for trial in study.get_trials()
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (trial.state == TrialState.FAIL and not _is_cut(trial))
    ]


def _is_cut(trial: FrozenTrial) -> bool:
    """Whether a failed trial was cut off, and says nothing about its settings."""
    return "reason" not in trial.user_attrs
