"""Does distillation pay here? A student with its teacher against the same student without.

Both are trained for the same few steps on the same written labels, and compared in pairs on
validation records, never on test records or the corpus's questions. Left out: the search for
settings (`study.py`).
"""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Float, Int

from limbeck.contracts.artifacts import Artifact
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import BusyError, LaunchError, TuningError
from limbeck.contracts.recipe import Recipe
from limbeck.contracts.records import Question
from limbeck.env.ranks import num_processes
from limbeck.evaluation.answer_questions import AnsweredQuestion, count_correct
from limbeck.evaluation.floors import make_floors
from limbeck.evaluation.held_out_questions import read_held_out
from limbeck.evaluation.metrics import Z_95, Share
from limbeck.evaluation.validation_loss import RecordLosses, measure_records
from limbeck.models.checkpoints import load_model
from limbeck.pipeline.check import check as check_recipe
from limbeck.pipeline.entry import Entry
from limbeck.pipeline.run import ReportStatus, make_needed, open_external
from limbeck.pipeline.run import run as run_recipe
from limbeck.stages.config.distill import Config as DistillConfig
from limbeck.tuning.config import Tuning
from limbeck.tuning.scoring import ask, keep_threads, read_likelihood, read_validation
from limbeck.tuning.space import name_folders, read_tuning

STEPS = 60
SECONDS = 120.0
SEEDS = 3
NEGLIGIBLE_RATIO = 0.01
"""A gain in accuracy that is surely below this counts as none."""
NEGLIGIBLE_NATS = 0.01
ArmName = Literal["with the teacher", "labels alone"]
CheckVerdict = Literal["pays", "does not pay", "cannot be told"]


@dataclass(frozen=True)
class Arm:
    """One student, once for each seed."""

    name: ArmName
    answered: tuple[tuple[AnsweredQuestion, ...], ...]
    """Of each seed; empty where the likelihood decides."""
    losses: tuple[RecordLosses, ...]
    seconds: float
    """Of training, all seeds together."""


@dataclass(frozen=True)
class GainEstimate:
    """With the teacher minus without, and how sure that is."""

    value: float
    low: float
    high: float
    num_needed: int
    """Questions, or records, that would tell a difference of this size from none; 0: no number."""

    def verdict(self, *, negligible: float) -> CheckVerdict:
        """What the interval says."""
        if self.low > 0:
            return "pays"
        return "does not pay" if self.high < negligible else "cannot be told"


@dataclass(frozen=True)
class QuickCheck:
    """What a quick check found."""

    entry: str
    metric: Literal["accuracy", "likelihood"]
    steps: int
    recipe_steps: int
    num_seeds: int
    num_compared: int
    """Validation questions, or records where the likelihood decides."""
    teacher: Share | None
    floors: Mapping[str, Share | str]
    """Accuracy of each floor, or why it has no answers."""
    arms: tuple[Arm, Arm]
    accuracy: GainEstimate | None
    likelihood: GainEstimate
    """In nats per token."""
    seconds: float
    """Of training and answering, without what the check needs made first."""

    @property
    def decisive(self) -> GainEstimate:
        """The difference that the metric names."""
        return self.accuracy or self.likelihood

    @property
    def verdict(self) -> CheckVerdict:
        """What the difference says; students that answer nothing cannot say it by accuracy."""
        if self.accuracy is None:
            return self.likelihood.verdict(negligible=NEGLIGIBLE_NATS)
        if not any(item.correct for arm in self.arms for run in arm.answered for item in run):
            return "cannot be told"
        return self.accuracy.verdict(negligible=NEGLIGIBLE_RATIO)


def quick_check(
    recipe: Recipe,
    *,
    runs: Path,
    folder: Path,
    steps: int = STEPS,
    seconds: float = SECONDS,
    report: ReportStatus = lambda name, text: None,
) -> QuickCheck:
    """Train the pairs and compare them; one pair at least, and no new one after so many seconds.

    Raises:
        RecipeError: the recipe is wrong.
        TuningError: there is no `distill` entry to compare, or nothing to compare it with.
        BusyError: another quick check is at work in the folder.
        DataError, LeakError: nothing is held out, or it stands elsewhere in the corpus.
    """
    if num_processes() > 1:
        raise LaunchError("a quick check trains in one process; start it without a launcher")
    entries = check_recipe(recipe)
    tuning, entry = _choose(recipe, entries)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            runner = _Runner(recipe, tuning, entry, entries, runs, folder, report)
            return runner.run(steps=steps, seconds=seconds)
    except Timeout:
        raise BusyError(f"{folder}: another quick check is at work there; wait for it") from None


def _choose(recipe: Recipe, entries: Mapping[str, Entry]) -> tuple[Tuning, Entry]:
    """The settings of `tune`, by default those of the only entry that distils."""
    names = [name for name, entry in entries.items() if entry.config.stage == "distill"]
    if recipe.tune:
        tuning = read_tuning(recipe)
    elif len(names) == 1:
        tuning = Tuning(stage=names[0])
    else:
        raise TuningError(
            f"{recipe.path}: a quick check compares one `distill` entry, and there are {names}; "
            "name it with --set tune.stage=ENTRY"
        )
    if tuning.stage not in names:
        raise TuningError(
            f"tune.stage {tuning.stage!r} is no `distill` entry of the recipe; these are: {names}"
        )
    return tuning, entries[tuning.stage]


class _Runner:
    """Everything that the trainings of one check share."""

    def __init__(
        self,
        recipe: Recipe,
        tuning: Tuning,
        entry: Entry,
        entries: Mapping[str, Entry],
        runs: Path,
        folder: Path,
        report: ReportStatus,
    ) -> None:
        assert isinstance(entry.config, DistillConfig)
        self.recipe, self.tuning, self.entry, self.folder = recipe, tuning, entry, folder
        self.config: DistillConfig = entry.config
        self.report = report
        if self.config.initialize_experts != "none":
            raise TuningError(
                f"{entry.name}: initialize_experts: a student without a teacher cannot be started "
                "so by `train`; compare the entry without it"
            )
        self.labels = self._find_labels(entries)
        """The corpus with the written labels alone."""
        self.made = self._make(entries, runs=runs)

    def _find_labels(self, entries: Mapping[str, Entry]) -> str:
        """The corpus below those that a teacher has answered."""
        name = self.config.corpus
        while name in entries and entries[name].config.stage == "label":
            name = entries[name].target("corpus")
        return name

    def _make(self, entries: Mapping[str, Entry], *, runs: Path) -> dict[str, Artifact]:
        """Every artifact that the students read, made now or reused; by name."""
        named = [item.target for item in self.entry.references] + [self.labels]
        names = {name for name in named if name in entries}
        made = make_needed(self.recipe, entries, names=names, runs=runs, report=self.report)
        outside = {
            item.target: open_external(item)
            for item in self.entry.references
            if item.target not in made
        }
        found = made | outside
        corpus = found[self.config.corpus].manifest
        if self.labels == self.config.corpus and corpus.stage == "label":
            raise TuningError(
                f"{self.config.corpus!r} holds a teacher's answers and is no entry of this recipe, "
                "so the corpus with the written labels alone is not known; add its `label` entry"
            )
        return found

    def run(self, *, steps: int, seconds: float) -> QuickCheck:
        """Pairs of students, one pair a seed, until the time is over."""
        own = self.config.training.max_steps
        steps = min(own, steps) if isinstance(own, int) else steps
        corpus = Corpus(self.made[self.config.corpus].path)
        by_accuracy = self.tuning.metric == "kept_accuracy"
        questions = (
            read_held_out(corpus, max_questions=self.tuning.max_questions) if by_accuracy else ()
        )
        started = time.monotonic()
        runs: dict[ArmName, list[tuple[tuple[AnsweredQuestion, ...], RecordLosses, float]]] = {
            "with the teacher": [],
            "labels alone": [],
        }
        for seed in range(SEEDS):
            if seed and time.monotonic() - started > seconds * seed / (seed + 1):
                self.report("quick check", f"no time for seed {seed + 1}")
                break
            for name, found in runs.items():
                found.append(self._train(name, seed=seed, steps=steps, questions=questions))
        first, second = (
            Arm(
                name,
                tuple(answered for answered, _, _ in found),
                tuple(losses for _, losses, _ in found),
                sum(taken for _, _, taken in found),
            )
            for name, found in runs.items()
        )
        return QuickCheck(
            self.entry.name,
            "accuracy" if by_accuracy else "likelihood",
            steps,
            own if isinstance(own, int) else 0,
            len(first.losses),
            len(questions) if by_accuracy else len(first.losses[0].counts),
            self._ask_teacher(questions),
            self._make_floors(questions),
            (first, second),
            compare_answers(first.answered, second.answered) if by_accuracy else None,
            compare_losses(first.losses, second.losses),
            time.monotonic() - started,
        )

    def _train(
        self, name: ArmName, *, seed: int, steps: int, questions: tuple[Question, ...]
    ) -> tuple[tuple[AnsweredQuestion, ...], RecordLosses, float]:
        """A student's answers, its losses on validation records, and its seconds of training."""
        entry = self._describe(name, seed=seed, steps=steps)
        place = self.folder / "students" / f"{name.replace(' ', '-')}-{seed}"
        trial = dataclasses.replace(
            self.recipe, name="trial", entries={"student": entry}, plan={}, tune={}, serve={}
        )
        student = run_recipe(trial, runs=place)["student"]
        corpus = Corpus(self.made[self.config.corpus].path)
        read_likelihood(student.manifest.metrics, corpus=corpus)
        model = load_model(student.path)
        batching = self.config.batching
        losses = measure_records(
            model, read_validation(model, corpus, folder=student.path, batching=batching)
        )
        answered: tuple[AnsweredQuestion, ...] = ()
        if questions:
            with keep_threads():
                answered = tuple(
                    ask(student, questions, tuning=self.tuning, state=place / "answers")
                )
        right = f"{count_correct(list(answered)).value:.1%} right, " if answered else ""
        loss = sum(losses.sums) / max(1, sum(losses.counts))
        taken = student.manifest.seconds
        self.report(f"{name}, seed {seed}", f"{right}{loss:.3f} nats/token, {taken:,.0f} s")
        return answered, losses, taken

    def _describe(self, name: ArmName, *, seed: int, steps: int) -> dict[str, Any]:
        """A recipe entry whose names are folders."""
        written = self.recipe.entries[self.entry.name]
        corpus = self.config.corpus if name == "with the teacher" else self.labels
        training = dict(written["training"]) | {"max_steps": steps, "seed": seed}
        entry = dict(written) | {"corpus": corpus, "training": training, "seed": seed}
        if name == "labels alone":
            kept = ("batching", "training", "lora", "seed", "initialize_from", "corpus")
            entry = {key: value for key, value in entry.items() if key in kept} | {
                "stage": "train",
                "model": written["student"],
                "objective": {"kind": "next_token"},
            }
        fields = ("corpus", "teacher", "student", "model", "initialize_from")
        return name_folders(entry, fields=fields, made=self.made)

    def _ask_teacher(self, questions: tuple[Question, ...]) -> Share | None:
        """The accuracy of a teacher that is one checkpoint; None for any other."""
        names = self.config.teacher_names
        teacher = self.made.get(names[0]) if len(names) == 1 else None
        if not questions or teacher is None or teacher.manifest.kind != "checkpoint":
            return None
        with keep_threads():
            state = self.folder / "answers"
            return count_correct(ask(teacher, questions, tuning=self.tuning, state=state))

    def _make_floors(self, questions: tuple[Question, ...]) -> dict[str, Share | str]:
        """What needs no model: a linear classifier on n-grams, and the nearest known question."""
        corpus = Corpus(self.made[self.labels].path)
        floors = make_floors(
            lambda: corpus.records("train"),
            folder=corpus.folder,
            questions=questions,
            names=("linear", "lookup") if questions else (),
        )
        return {
            floor.name: count_correct(list(floor.answered))
            if floor.answered
            else "; ".join(sorted(set(floor.missing.values())))
            for floor in floors
        }


def compare_answers(
    ours: Sequence[Sequence[AnsweredQuestion]], theirs: Sequence[Sequence[AnsweredQuestion]]
) -> GainEstimate:
    """The difference in accuracy, paired by question and seed."""
    assert [item.id for item in ours[0]] == [item.id for item in theirs[0]]
    right = [np.array([[q.correct for q in run] for run in arm], float) for arm in (ours, theirs)]
    groups = [item.cluster for item in ours[0]]
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    difference = right[0] - right[1]
    sums = np.stack([np.bincount(inverse, weights=row) for row in difference])
    return measure_difference(sums, np.bincount(inverse), num_items=len(groups))


def compare_losses(ours: Sequence[RecordLosses], theirs: Sequence[RecordLosses]) -> GainEstimate:
    """The difference in log-likelihood per token, paired by record and seed."""
    assert ours[0].record_ids == theirs[0].record_ids
    sums = np.array([run.sums for run in theirs]) - np.array([run.sums for run in ours])
    counts = np.array(ours[0].counts)
    return measure_difference(sums, counts, num_items=len(counts))


def measure_difference(
    sums: Float[np.ndarray, "seeds groups"], counts: Int[np.ndarray, " groups"], *, num_items: int
) -> GainEstimate:
    """The mean over seeds and groups, with an interval that redraws both.

    The variance over groups of the seeds' mean (Cochran 1977, sec. 2.11) plus that of a mean over
    seeds. One seed says nothing about others: its interval is that over groups.
    """
    num_seeds, num_groups = sums.shape
    total = counts.sum()
    mean = sums.mean(axis=0)
    value = float(mean.sum() / total)
    spread = np.square(mean - value * counts).sum() / total**2
    of_groups = float(spread * num_groups / max(1, num_groups - 1))
    by_seed = sums.sum(axis=1) / total
    of_seeds = float(by_seed.var(ddof=1) / num_seeds) if num_seeds > 1 else 0.0
    half = Z_95 * math.sqrt(of_groups + of_seeds)
    room = (value / Z_95) ** 2 - of_seeds
    needed = math.ceil(num_items * of_groups / room) if room > 0 else 0
    return GainEstimate(value, value - half, value + half, needed)
