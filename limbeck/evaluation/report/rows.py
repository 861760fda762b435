"""One row of the report for each model: accuracy, what was kept, speed and size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from limbeck.contracts.serialization import OPTIONAL
from limbeck.env.threads import LoadRange, ThreadChoice
from limbeck.evaluation.answer_questions import AnsweredQuestion, count_correct
from limbeck.evaluation.declined import Declined
from limbeck.evaluation.floors import Floor
from limbeck.evaluation.floors.methods import Missing
from limbeck.evaluation.metrics import (
    Share,
    accuracy_ratio,
    exact_match,
    speed_ratio,
    wilson_interval,
)
from limbeck.evaluation.profiling.profile import Latency, Profile
from limbeck.evaluation.quality import (
    Estimate,
    LabelScores,
    TextScores,
    by_task,
    compare_to_floors,
    measure_labels,
    measure_likelihoods,
    measure_texts,
)
from limbeck.evaluation.report.without_teacher import Training
from limbeck.evaluation.roc_auc import RocResult, measure_findings

BFLOAT16_BYTES = 2


@dataclass(frozen=True)
class MeasuredModel:
    """One model with its answers and its profile."""

    name: str
    kind: str
    """`checkpoint` or `bundle`."""
    content_hash: str
    size_bytes: int
    """Bytes of its folder on disk."""
    answered_questions: tuple[AnsweredQuestion, ...]
    profile: Profile
    training: Training | None = None
    declined: Declined | None = None
    """None where the model is not calibrated."""


@dataclass(frozen=True)
class Bounds:
    """The 95 % interval of a figure that stands beside it."""

    low: float
    high: float


@dataclass(frozen=True)
class CountedBounds:
    """The 95 % interval of a share, and of how many questions it is one."""

    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Percentiles:
    """Median and 95th percentile."""

    p50: float
    p95: float


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """One model; ratios are against the teacher on the same questions."""

    name: str
    kind: str
    content_hash: str
    parameters: int
    active_parameters: int
    size_bytes: int
    weight_bytes: int
    peak_memory_bytes: int
    base_memory_bytes: int
    memory_method: str
    memory_ratio: float
    """The teacher counts as 2 bytes a parameter, also against itself."""
    latency_seconds: Percentiles
    latency_threads: int
    tokens_per_second: float
    latency_by_threads: Mapping[int, Latency]
    load_by_threads: Mapping[int, LoadRange] = field(default_factory=dict)
    """Beside the answers timed with so many threads; empty in reports that do not hold it."""
    default_threads: ThreadChoice | None = field(default=None, metadata=OPTIONAL)
    """What answering a single question chooses by itself; None in reports that do not hold it."""
    speedup_ratio: float
    speedup_interval: Bounds
    tasks: Mapping[str, Share]
    accuracy: float
    """Over all questions of the headline tasks."""
    accuracy_interval: CountedBounds
    kept_ratio: float | None
    """None where the teacher answers nothing right."""
    findings: Mapping[str, RocResult] = field(default_factory=dict)
    kept_interval: Bounds | None
    specialties: Mapping[str, Share]
    refused: Share
    """How often the model answered that it does not know, where an answer was generated."""
    num_too_long: int | None = field(default=None, metadata=OPTIONAL)
    """Questions of the accuracy that are longer than the model reads; None where it read all."""
    declined: Declined | None = field(default=None, metadata=OPTIONAL)
    """What its calibration declines; None where it is not calibrated."""
    log_likelihood: Estimate | None = field(default=None, metadata=OPTIONAL)
    """Of the answers of test records, where these are asked: mean over records, per token."""
    nats_per_byte: Estimate | None = field(default=None, metadata=OPTIONAL)
    """Of the same answers; unlike the former, it compares models with different tokenizers."""
    texts: Mapping[str, TextScores] = field(default_factory=dict)
    """Of the tasks whose answers are free texts."""
    labels: Mapping[str, LabelScores] = field(default_factory=dict)
    """Of the tasks whose answers are labels."""
    training: Training | None = field(default=None, metadata=OPTIONAL)
    """How it was trained, where that tells it from the other rows."""
    beaten_by: tuple[str, ...] = ()
    """Floors with a higher accuracy, among those that answer every headline task."""
    beaten_in: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tasks in which a floor answers more questions right, with those floors."""


@dataclass(frozen=True, kw_only=True)
class FloorRow:
    """One floor, scored as the models are."""

    name: str
    tasks: Mapping[str, Share]
    missing: Mapping[str, Missing]
    """Tasks that it has no answers to, with the reason."""
    accuracy: float | None
    """None where it lacks a headline task."""
    accuracy_interval: CountedBounds | None
    texts: Mapping[str, TextScores]
    labels: Mapping[str, LabelScores]
    findings: Mapping[str, RocResult] = field(default_factory=dict)


def make_floor_rows(
    floors: Sequence[Floor], *, headline_tasks: Sequence[str], language: str
) -> tuple[FloorRow, ...]:
    """A row for each floor, in order."""
    return tuple(
        _make_floor_row(floor, headline_tasks=headline_tasks, language=language) for floor in floors
    )


def _make_floor_row(floor: Floor, *, headline_tasks: Sequence[str], language: str) -> FloorRow:
    is_whole = not set(headline_tasks) & floor.missing.keys()
    headline = [item for item in floor.answered if item.task in headline_tasks]
    pooled = count_correct(headline)
    bounds = CountedBounds(pooled.low, pooled.high, pooled.count)
    return FloorRow(
        name=floor.name,
        tasks={task: count_correct(items) for task, items in by_task(floor.answered).items()},
        missing=floor.missing,
        accuracy=pooled.value if is_whole else None,
        accuracy_interval=bounds if is_whole else None,
        texts=measure_texts(floor.answered, language=language),
        labels=measure_labels(floor.answered),
        findings=measure_findings(floor.answered),
    )


def make_rows(
    models: Sequence[MeasuredModel],
    *,
    teacher: str,
    headline_tasks: Sequence[str],
    unknown_answers: Sequence[str],
    num_threads: int,
    floors: Sequence[FloorRow] = (),
    language: str = "",
) -> tuple[ReportRow, ...]:
    """A row for each model, in order; `floors` are what it is compared with."""
    reference = next(model for model in models if model.name == teacher)
    return tuple(
        _make_row(
            model,
            reference=reference,
            others=models,
            headline_tasks=headline_tasks,
            unknown_answers=unknown_answers,
            num_threads=num_threads,
            floors=floors,
            language=language,
        )
        for model in models
    )


def _make_row(
    model: MeasuredModel,
    *,
    reference: MeasuredModel,
    others: Sequence[MeasuredModel],
    headline_tasks: Sequence[str],
    unknown_answers: Sequence[str],
    num_threads: int,
    floors: Sequence[FloorRow],
    language: str,
) -> ReportRow:
    opened, latency = model.profile.opened, model.profile.latency(num_threads)
    speedup = speed_ratio(
        seconds=model.profile.seconds(num_threads),
        reference_seconds=reference.profile.seconds(num_threads),
    )
    headline = [item for item in model.answered_questions if item.task in headline_tasks]
    pooled = count_correct(headline)
    kept = accuracy_ratio(
        correct=np.array([item.correct for item in headline]),
        reference=np.array(
            [item.correct for item in reference.answered_questions if item.task in headline_tasks]
        ),
        groups=[item.cluster for item in headline],
    )
    names = dict.fromkeys((*headline_tasks, *(item.task for item in model.answered_questions)))
    tasks = {
        task: count_correct([item for item in model.answered_questions if item.task == task])
        for task in names
    }
    likelihoods = measure_likelihoods(
        model.answered_questions, others=[item.answered_questions for item in others]
    )
    specialties = sorted({item.specialty for item in headline} - {""})
    return ReportRow(
        name=model.name,
        kind=model.kind,
        content_hash=model.content_hash,
        parameters=opened.size.parameters,
        active_parameters=opened.size.active_parameters,
        size_bytes=model.size_bytes,
        weight_bytes=opened.size.weight_bytes,
        peak_memory_bytes=opened.peak_memory_bytes,
        base_memory_bytes=opened.base_memory_bytes,
        memory_method=opened.memory_method,
        memory_ratio=_memory_ratio(model, reference),
        latency_seconds=Percentiles(latency.p50, latency.p95),
        latency_threads=num_threads,
        tokens_per_second=latency.tokens_per_second,
        latency_by_threads={count: model.profile.latency(count) for count in model.profile.timings},
        load_by_threads=model.profile.load_by_threads,
        default_threads=model.profile.default_threads,
        speedup_ratio=speedup.value,
        speedup_interval=Bounds(speedup.low, speedup.high),
        tasks=tasks,
        accuracy=pooled.value,
        accuracy_interval=CountedBounds(pooled.low, pooled.high, pooled.count),
        kept_ratio=kept.value if kept else None,
        findings=measure_findings(model.answered_questions),
        kept_interval=Bounds(kept.low, kept.high) if kept else None,
        specialties={
            name: count_correct([item for item in headline if item.specialty == name])
            for name in specialties
        },
        refused=_count_refused(headline, unknown_answers),
        num_too_long=sum(item.is_too_long for item in headline) or None,
        declined=model.declined,
        log_likelihood=likelihoods.per_token if likelihoods else None,
        nats_per_byte=likelihoods.nats_per_byte if likelihoods else None,
        texts=measure_texts(model.answered_questions, language=language),
        labels=measure_labels(model.answered_questions),
        training=model.training,
        beaten_by=tuple(
            floor.name
            for floor in floors
            if floor.accuracy is not None and floor.accuracy > pooled.value
        ),
        beaten_in=compare_to_floors(tasks, floors={floor.name: floor.tasks for floor in floors}),
    )


def _memory_ratio(model: MeasuredModel, reference: MeasuredModel) -> float:
    teacher_bytes = BFLOAT16_BYTES * reference.profile.opened.size.parameters
    counted_bytes = model.profile.opened.size.weight_bytes
    return teacher_bytes / (teacher_bytes if model is reference else counted_bytes)


def _count_refused(headline: Sequence[AnsweredQuestion], unknown_answers: Sequence[str]) -> Share:
    generated = [item for item in headline if item.form != "choice"]
    refused = sum(exact_match(item.answer, expected=unknown_answers) for item in generated)
    return wilson_interval(refused, len(generated))
