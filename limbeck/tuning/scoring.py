"""What a trial's student is worth and what it costs, measured as the report measures it."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from limbeck.contracts.answerer import apply_here
from limbeck.contracts.artifacts import Artifact, read_artifact
from limbeck.contracts.corpus import Corpus
from limbeck.contracts.errors import ArtifactError, DataError, TuningError
from limbeck.contracts.records import Question
from limbeck.data.loading.batches import validation_batches
from limbeck.data.loading.config import BatchingConfig
from limbeck.data.loading.selection import read_selected
from limbeck.evaluation.answer_questions import (
    AnsweredQuestion,
    answer_with_each,
    count_correct,
)
from limbeck.evaluation.held_out_questions import read_held_out
from limbeck.evaluation.metrics import accuracy_ratio
from limbeck.evaluation.profiling.profile import ProfileConfig, profiling
from limbeck.evaluation.report.number_format import Number
from limbeck.evaluation.validation_loss import measure_records, measure_validation
from limbeck.models.batch import Batch
from limbeck.models.checkpoints import load_model
from limbeck.models.tokenizers import load_tokenizer
from limbeck.models.vision.configuration import image_format
from limbeck.runtimes import open_answerer
from limbeck.sizing.parameters import size_model
from limbeck.tuning.config import Tuning

BATCH_QUESTIONS = 64
PROFILE = ProfileConfig(questions=4, rounds=2, thread_counts=(1,))
MIB = 2**20


@dataclass(frozen=True)
class Scores:
    """A student's score of each question, or of each held-out record."""

    values: tuple[float, ...]
    """1 for a right answer, or the log-likelihood of a record's tokens."""
    sizes: tuple[float, ...]
    """What their sum is divided by: 1 a question, or the tokens of a record."""
    groups: tuple[str, ...]
    """What is right or wrong together."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Scores":
        """Scores that a study holds."""
        return cls(tuple(value["values"]), tuple(value["sizes"]), tuple(value["groups"]))

    def to_json(self) -> dict[str, Any]:
        """What a study holds."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class MeasuredStudent:
    """A finished student."""

    figures: dict[str, Number]
    """`value` is what the search maximises."""
    scores: Scores


@dataclass(frozen=True)
class TrialScorer:
    """Measures students of one search on one corpus."""

    tuning: Tuning
    corpus: Corpus
    batching: BatchingConfig
    """The recipe's own, which selects the records whose likelihood is compared."""
    questions: tuple[Question, ...]
    """None where the likelihood decides."""
    teacher: tuple[AnsweredQuestion, ...]
    """The teacher's answers to them."""

    def measure_running(
        self, model: PreTrainedModel, config: Any, *, inputs: Mapping[str, Artifact]
    ) -> float:
        """Mean log-likelihood of the validation tokens; the model trains on as it was."""
        start = inputs.get("student")
        folder = start.path if start is not None else self.corpus.tokenizer_path
        trained = model.training
        batches = read_validation(model, self.corpus, folder=folder, batching=config.batching)
        found = measure_validation(model, batches)
        model.train(trained)
        return read_likelihood(found, corpus=self.corpus)

    def parameters(self, model: PreTrainedModel) -> int:
        """The count that the report shows."""
        return size_model(model.config, context_tokens=1).parameters

    def measure(self, student: Artifact, *, state: Path) -> MeasuredStudent:
        """Everything about a finished student.

        Raises:
            CheckpointError: its time cannot be measured.
        """
        found = self.score(student, state=state)
        figures = found.figures
        if self.tuning.budget.max_latency_ms < float("inf"):
            figures["latency_ms"] = measure_latency(
                student,
                questions=self.questions or self._any_questions(),
                max_new_tokens=self.tuning.max_new_tokens,
            )
        return found

    def score(self, student: Artifact, *, state: Path) -> MeasuredStudent:
        """What a finished student is worth, and its size."""
        metrics = student.manifest.metrics
        figures = {"log_likelihood": read_likelihood(metrics, corpus=self.corpus)}
        with keep_threads():
            opener = functools.partial(open_answerer, student.path, num_threads=1)
            size = opener().size()
            figures |= {"parameters": size.parameters, "mib": size.weight_bytes / MIB}
            if self.questions:
                asked = ask(student, self.questions, tuning=self.tuning, state=state)
                figures |= compare(asked, self.teacher)
                scores = score_answers(asked)
            else:
                scores = self._score_records(student)
        kept = self.tuning.metric == "kept_accuracy"
        figures["value"] = figures["kept_ratio" if kept else "log_likelihood"]
        return MeasuredStudent(figures, scores)

    def _score_records(self, student: Artifact) -> Scores:
        model = load_model(student.path)
        batches = read_validation(model, self.corpus, folder=student.path, batching=self.batching)
        found = measure_records(model, batches)
        records = read_selected(self.corpus, self.batching, split="validation")
        rows = sorted(zip(found.record_ids, found.sums, found.counts, strict=True))
        return Scores(
            tuple(-loss for _, loss, _ in rows),
            tuple(float(count) for _, _, count in rows),
            tuple(records[index].group or records[index].id for index, _, _ in rows),
        )

    def _any_questions(self) -> tuple[Question, ...]:
        return read_held_out(self.corpus, max_questions=PROFILE.questions)

    def excess(self, found: Mapping[str, Number]) -> dict[str, Number]:
        """How far above each bound, as a share of it; 0 or less keeps to it."""
        budget = self.tuning.budget
        bounds = {
            "parameters": budget.max_parameters,
            "mib": budget.max_mib,
            "latency_ms": budget.max_latency_ms,
        }
        return {
            name: found[name] / bound - 1
            for name, bound in bounds.items()
            if bound < float("inf") and name in found
        }


def make_scorer(
    tuning: Tuning, *, inputs: Mapping[str, Artifact], batching: BatchingConfig, state: Path
) -> TrialScorer:
    """A scorer with the teacher's answers, which are asked for once.

    Raises:
        DataError: nothing is held out, or the teacher knows none of it.
        LeakError: what is held out stands elsewhere in the corpus.
        TuningError: there is no teacher to ask.
    """
    corpus = Corpus(inputs["corpus"].path)
    if tuning.metric == "likelihood":
        return TrialScorer(tuning, corpus, batching, (), ())
    questions = read_held_out(corpus, max_questions=tuning.max_questions)
    teacher = find_teacher(inputs)
    with keep_threads():
        answers = ask(teacher, questions, tuning=tuning, state=state)
    if not any(item.correct for item in answers):
        raise DataError(
            f"the teacher answers none of {len(answers)} validation questions right, so no share "
            "of its accuracy can be kept; train it longer, or set tune.metric: likelihood",
            path=teacher.path,
        )
    return TrialScorer(tuning, corpus, batching, questions, tuple(answers))


def read_validation(
    model: PreTrainedModel, corpus: Corpus, *, folder: Path, batching: BatchingConfig
) -> Iterator[Batch]:
    """The held-out records for a model, read with the tokenizer in a folder."""
    return validation_batches(
        corpus,
        tokenizer=load_tokenizer(folder),
        config=batching,
        image_format=image_format(model.config),
    )


def read_likelihood(metrics: Mapping[str, Any], *, corpus: Corpus) -> float:
    """Mean log-likelihood in nats per validation token.

    Raises:
        DataError: nothing was held out.
    """
    if "validation_loss" not in metrics:
        raise DataError(
            "the entry's batching selects no record here, so trials cannot be compared; hold some "
            "out with splits.validation_ratio",
            path=corpus.records_path("validation"),
        )
    return -metrics["validation_loss"]


def find_teacher(inputs: Mapping[str, Artifact]) -> Artifact:
    """The checkpoint that teaches, or whose signals do.

    Raises:
        TuningError: there is none to ask.
    """
    teacher = inputs.get("teacher")
    found = "there is none"
    if teacher is not None and teacher.manifest.kind == "signals":
        parents = teacher.manifest.parents.get("teacher", ())
        found = f"{teacher.path} holds signals that do not say whose they are"
        try:
            teacher = read_artifact(Path(parents[0].path)) if parents else None
        except ArtifactError as error:
            teacher, found = None, f"that of the signals {teacher.path} cannot be found: {error}"
    if teacher is not None and teacher.manifest.kind != "checkpoint":
        found = f"{teacher.path} is a {teacher.manifest.kind}"
        teacher = None
    if teacher is None:
        raise TuningError(f"kept_accuracy asks the teacher, yet {found}; set `metric: likelihood`")
    return teacher


def ask(
    model: Artifact, questions: tuple[Question, ...], *, tuning: Tuning, state: Path
) -> list[AnsweredQuestion]:
    """A model's judged answers; those in `state` are not asked again."""
    answers = answer_with_each(
        [model],
        questions,
        open_model=lambda opened: apply_here(open_answerer(opened.path, num_threads=1)),
        batch_size=BATCH_QUESTIONS,
        max_new_tokens=tuning.max_new_tokens,
        state=state,
        title="answer",
    )
    return answers[model.name]


def compare(
    asked: list[AnsweredQuestion], teacher: tuple[AnsweredQuestion, ...]
) -> dict[str, Number]:
    """Accuracy, and what of the teacher's is kept, with its 95 % interval."""
    assert [item.id for item in asked] == [item.id for item in teacher]
    kept = accuracy_ratio(
        correct=np.array([item.correct for item in asked], dtype=bool),
        reference=np.array([item.correct for item in teacher], dtype=bool),
        groups=[item.cluster for item in asked],
    )
    assert kept is not None
    return {
        "accuracy": count_correct(asked).value,
        "kept_ratio": kept.value,
        "kept_low": kept.low,
        "kept_high": kept.high,
    }


def score_answers(asked: Sequence[AnsweredQuestion]) -> Scores:
    """1 for each right answer."""
    return Scores(
        tuple(float(item.correct) for item in asked),
        (1.0,) * len(asked),
        tuple(item.cluster for item in asked),
    )


def measure_latency(
    student: Artifact, *, questions: tuple[Question, ...], max_new_tokens: int
) -> float:
    """Median milliseconds of an answer on one thread, in a process of its own."""
    opener = functools.partial(open_answerer, student.path, num_threads=1)
    asked = [item.question for item in questions]
    with profiling(
        {student.name: {1: opener}}, questions=asked, config=PROFILE, max_new_tokens=max_new_tokens
    ) as processes:
        return 1000 * processes.measure()[student.name].latency(1).p50


@contextmanager
def keep_threads() -> Iterator[None]:
    """Answering sets torch's threads; the training after it has its own again."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
