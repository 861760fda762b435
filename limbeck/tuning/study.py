"""Running trials of a search: one study in SQLite that goes on where it was stopped.

Trial `n` is sampled from the trials before it and a seed of its own, so a search that was stopped
goes on as if it had not been.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock, Timeout
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

import limbeck
from limbeck.contracts.artifacts import Artifact, hash_text
from limbeck.contracts.errors import BusyError, LaunchError, LimbeckError, TuningError
from limbeck.contracts.recipe import Recipe
from limbeck.env.ranks import num_processes
from limbeck.pipeline.check import check as check_recipe
from limbeck.pipeline.entry import Entry
from limbeck.pipeline.run import open_external
from limbeck.pipeline.run import run as run_recipe
from limbeck.tuning.config import Tuning
from limbeck.tuning.scoring import Number, TrialScorer, make_scorer
from limbeck.tuning.space import Space, make_space, read_tuning

DATABASE = "study.db"
STARTUP_TRIALS = 8
"""So many trials are drawn at random before the others are drawn near the good ones."""
Report = Callable[[str, str], None]


class PrunedError(Exception):
    """Raised into a training that is not worth going on; never seen outside."""


@dataclass(frozen=True)
class Search:
    """A finished or stopped search."""

    recipe: Recipe
    tuning: Tuning
    space: Space
    trials: tuple[FrozenTrial, ...]
    """Every trial that has ended."""
    folder: Path
    teacher_accuracy: float
    """On the validation questions; 0 where the likelihood decides."""
    num_questions: int

    @property
    def best(self) -> FrozenTrial | None:
        """The best trial that keeps to the budget."""
        return find_best(self.trials)


def find_best(trials: tuple[FrozenTrial, ...]) -> FrozenTrial | None:
    """The finished trial of highest value within the budget, the earliest of equals."""
    fitting = [trial for trial in trials if trial.state == TrialState.COMPLETE and fits(trial)]
    return max(fitting, key=lambda trial: (trial.value, -trial.number), default=None)


def fits(trial: FrozenTrial) -> bool:
    """Whether a trial keeps to every bound that was measured."""
    return all(excess <= 0 for excess in trial.constraints.values())


def search(
    recipe: Recipe,
    *,
    runs: Path,
    folder: Path,
    trials: int = 0,
    timeout_seconds: float = 0.0,
    report: Report = lambda name, text: None,
) -> Search:
    """Run a recipe's search to its number of trials; 0 leaves that number to the recipe.

    Raises:
        RecipeError: the recipe or its space is wrong.
        BusyError: another search is at work in the folder.
        TuningError: every trial failed, or none keeps to the budget.
    """
    if num_processes() > 1:
        raise LaunchError("`limbeck tune` runs its trials one by one; start it without a launcher")
    entries = check_recipe(recipe)
    tuning = read_tuning(recipe)
    space = make_space(recipe, tuning, entries)
    made = _make_needed(recipe, space, entries, runs=runs, report=report)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            runner = _Runner(recipe, tuning, space, made, folder, report)
            return runner.run(trials or tuning.trials, timeout_seconds=timeout_seconds)
    except Timeout:
        raise BusyError(f"{folder}: another `limbeck tune` is at work there; wait for it") from None


def _make_needed(
    recipe: Recipe, space: Space, entries: Mapping[str, Entry], *, runs: Path, report: Report
) -> dict[str, Artifact]:
    """Every artifact that a trial reads, made now or reused."""
    wanted, queue = set(), list(space.needed)
    while queue:
        name = queue.pop()
        if name not in wanted:
            wanted.add(name)
            queue += [item.target for item in entries[name].references if item.target in entries]
    if not wanted:
        return {}
    part = {name: entry for name, entry in recipe.entries.items() if name in wanted}
    return run_recipe(dataclasses.replace(recipe, entries=part), runs=runs, report=report)


class _Runner:
    """Everything that the trials of one search share."""

    def __init__(
        self,
        recipe: Recipe,
        tuning: Tuning,
        space: Space,
        made: Mapping[str, Artifact],
        folder: Path,
        report: Report,
    ) -> None:
        self.recipe, self.tuning, self.space, self.made = recipe, tuning, space, made
        self.folder, self.report = folder, report
        self.config = space.entry.config
        self.inputs = self._inputs()
        self.scorer: TrialScorer = make_scorer(tuning, inputs=self.inputs, state=folder / "answers")
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
            if not study.trials:
                study.enqueue_trial(self.space.own())
            while (index := len(_counted(study))) < num_trials:
                if timeout_seconds and time.monotonic() - started > timeout_seconds:
                    self.report("tune", f"time is over after {index} of {num_trials} trials")
                    break
                self._run_one(study, index=index, num_trials=num_trials)
            found = Search(
                self.recipe,
                self.tuning,
                self.space,
                tuple(_counted(study)),
                self.folder,
                sum(item.correct for item in self.scorer.teacher)
                / max(1, len(self.scorer.teacher)),
                len(self.scorer.questions),
            )
        finally:
            storage.remove_session()
            storage.engine.dispose()
        return found

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
            self._note_excess(trial, measured)
            trial.set_user_attr("measured", measured)
            study.tell(trial, measured["value"])
            outcome = f"{describe(measured['value'], self.tuning)}"
            if any(excess > 0 for excess in trial.constraints.values()):
                outcome += ", over the budget"
        best = find_best(tuple(study.get_trials(deepcopy=False)))
        self._clear(best)
        lead = f"; best {describe(best.value, self.tuning)} (trial {best.number})" if best else ""
        seconds = time.monotonic() - started
        self.report(f"trial {index + 1}/{num_trials}", f"{outcome} in {seconds:,.1f} s{lead}")

    def _begin(self, study: Study, *, index: int) -> Trial | None:
        """The trial that was cut off, or a new one; None where a cut left too little of it."""
        seed = int(hash_text(f"{self.tuning.seed}:{index}")[:8], 16)
        study.sampler = TPESampler(n_startup_trials=STARTUP_TRIALS, seed=seed)
        cut = [item for item in study.trials if item.state == TrialState.RUNNING]
        if not cut:
            return study.ask(fixed_distributions=self.space.distributions)
        if set(cut[0].params) == set(self.space.distributions):
            self.report(f"trial {index + 1}", "was cut off and goes on")
            return Trial(study, cut[0]._trial_id)
        study.tell(cut[0].number, state=TrialState.FAIL)
        if cut[0].number == 0:
            study.enqueue_trial(self.space.own())
        return None

    def _train(self, trial: Trial, folder: Path) -> dict[str, Number]:
        """Train a trial's student and measure it.

        Raises:
            PrunedError: it is stopped early.
        """
        name = self.space.entry.name
        entry = self._point(self.space.apply(trial.params))
        recipe = dataclasses.replace(
            self.recipe, name="trial", entries={name: entry}, plan={}, tune={}
        )
        config = check_recipe(recipe)[name].config
        made = run_recipe(
            recipe,
            runs=folder,
            on_step=lambda *step: self._on_step(trial, config, *step),
        )
        return self.scorer.measure(made[name], state=folder / "answers")

    def _point(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The entry with the folders of what it names."""

        def point(value: Any) -> Any:
            if isinstance(value, list):
                return [point(item) for item in value]
            made = self.made.get(value) if isinstance(value, str) else None
            return str(made.path) if made is not None else value

        fields = {item.field for item in self.space.entry.references} | {"student"}
        return {key: point(value) if key in fields else value for key, value in entry.items()}

    def _on_step(self, trial: Trial, config: Any, done: int, steps: int, model: Any) -> None:
        """After a step: note the likelihood at a rung, and stop what is too large or hopeless."""
        if self.sized != trial.number:
            self.sized = trial.number
            found = {"parameters": self.scorer.parameters(model)}
            if any(excess > 0 for excess in self.scorer.excess(found).values()):
                self._note_excess(trial, found)
                trial.set_user_attr("measured", found)
                raise PrunedError(f"stopped: {found['parameters']:,} parameters exceed the budget")
        pruner = self.tuning.pruner
        at = [max(1, int(share * steps)) for share in pruner.rungs()]
        for mark, step in zip(pruner.marks(), at, strict=True):
            if step == done and step < steps:
                known = trial.study.trials[trial.number].intermediate_values
                if mark not in known:
                    value = self.scorer.look(model, config, inputs=self.inputs)
                    trial.report(value, mark)
                if trial.should_prune():
                    raise PrunedError(f"stopped after {done} of {steps} steps")

    def _note_excess(self, trial: Trial, found: Mapping[str, Number]) -> None:
        for name, excess in self.scorer.excess(found).items():
            if name not in trial.constraints:
                trial.set_constraint(name, excess)

    def _clear(self, best: FrozenTrial | None) -> None:
        """Keep the best trial's checkpoint only; every figure stands in the study."""
        for path in self.work_dir.glob("*"):
            if best is None or path.name != f"{best.number:04d}":
                shutil.rmtree(path)


def _counted(study: Study) -> list[FrozenTrial]:
    """Trials that have ended; one that was cut off before it had its values does not count."""
    return [
        trial
        for trial in study.get_trials()
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or (trial.state == TrialState.FAIL and "reason" in trial.user_attrs)
    ]


def check_outcome(found: Search) -> None:
    """Nothing, when a trial can be used.

    Raises:
        TuningError: all failed, were stopped, or cost too much, with their reasons.
    """
    if found.best is not None or not found.trials:
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
