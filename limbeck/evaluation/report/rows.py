"""One row of the report for each model: accuracy, what was kept, speed and size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from limbeck.contracts.serialization import OPTIONAL
from limbeck.env.threads import LoadRange, ThreadChoice
from limbeck.evaluation.answer_questions import AnsweredQuestion, count_correct
from limbeck.evaluation.held_out_questions import TEST_SPLIT
from limbeck.evaluation.metrics import (
    Share,
    accuracy_ratio,
    clustered_mean,
    exact_match,
    speed_ratio,
    wilson_interval,
)
from limbeck.evaluation.profiling.profile import Latency, Profile
from limbeck.evaluation.roc_auc import Findings, measure_findings

BFLOAT16_BYTES = 2


@dataclass(frozen=True)
class Measured:
    """One model with its answers and its profile."""

    name: str
    kind: str
    """`checkpoint` or `bundle`."""
    content_hash: str
    size_bytes: int
    """Bytes of its folder on disk."""
    asked: tuple[AnsweredQuestion, ...]
    profile: Profile


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


@dataclass(frozen=True)
class LogLikelihood:
    """The mean over records of the mean log-probability per token, with its 95 % interval."""

    value: float
    low: float
    high: float
    count: int
    """Records that every model of the report can read."""


@dataclass(frozen=True, kw_only=True)
class Row:
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
    findings: Mapping[str, Findings] = field(default_factory=dict)
    kept_interval: Bounds | None
    specialties: Mapping[str, Share]
    refused: Share
    """How often the model answered that it does not know, where an answer was generated."""
    log_likelihood: LogLikelihood | None = field(default=None, metadata=OPTIONAL)
    """Of the answers of test records, where these are asked."""


def make_rows(
    models: Sequence[Measured],
    *,
    teacher: str,
    headline_tasks: Sequence[str],
    unknown_answers: Sequence[str],
    num_threads: int,
) -> tuple[Row, ...]:
    """A row for each model, in order."""
    reference = next(model for model in models if model.name == teacher)
    return tuple(
        _make_row(
            model,
            reference=reference,
            others=models,
            headline_tasks=headline_tasks,
            unknown_answers=unknown_answers,
            num_threads=num_threads,
        )
        for model in models
    )


def _make_row(
    model: Measured,
    *,
    reference: Measured,
    others: Sequence[Measured],
    headline_tasks: Sequence[str],
    unknown_answers: Sequence[str],
    num_threads: int,
) -> Row:
    opened, latency = model.profile.opened, model.profile.latency(num_threads)
    speedup = speed_ratio(
        seconds=_seconds(model, num_threads), reference_seconds=_seconds(reference, num_threads)
    )
    headline = [item for item in model.asked if item.task in headline_tasks]
    pooled = count_correct(headline)
    kept = accuracy_ratio(
        correct=np.array([item.correct for item in headline]),
        reference=np.array(
            [item.correct for item in reference.asked if item.task in headline_tasks]
        ),
        groups=[item.cluster for item in headline],
    )
    tasks = dict.fromkeys((*headline_tasks, *(item.task for item in model.asked)))
    specialties = sorted({item.specialty for item in headline} - {""})
    return Row(
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
        tasks={
            task: count_correct([item for item in model.asked if item.task == task])
            for task in tasks
        },
        accuracy=pooled.value,
        accuracy_interval=CountedBounds(pooled.low, pooled.high, pooled.count),
        kept_ratio=kept.value if kept else None,
        findings=measure_findings(model.asked),
        kept_interval=Bounds(kept.low, kept.high) if kept else None,
        specialties={
            name: count_correct([item for item in headline if item.specialty == name])
            for name in specialties
        },
        refused=_count_refused(headline, unknown_answers),
        log_likelihood=_measure_likelihood(model, others=others),
    )


def _memory_ratio(model: Measured, reference: Measured) -> float:
    teacher_bytes = BFLOAT16_BYTES * reference.profile.opened.size.parameters
    counted_bytes = model.profile.opened.size.weight_bytes
    return teacher_bytes / (teacher_bytes if model is reference else counted_bytes)


def _seconds(model: Measured, num_threads: int) -> np.ndarray:
    return np.array([timing.seconds for timing in model.profile.timings[num_threads]])


def _count_refused(headline: Sequence[AnsweredQuestion], unknown_answers: Sequence[str]) -> Share:
    generated = [item for item in headline if item.form != "choice"]
    refused = sum(exact_match(item.answer, expected=unknown_answers) for item in generated)
    return wilson_interval(refused, len(generated))


def _measure_likelihood(model: Measured, *, others: Sequence[Measured]) -> LogLikelihood | None:
    columns = zip(*(item.asked for item in others), strict=True)
    read = [
        place
        for place, items in enumerate(columns)
        if all(item.task == TEST_SPLIT and item.option_scores for item in items)
    ]
    if not read:
        return None
    mean = clustered_mean(
        values=np.array([model.asked[place].option_scores[0] for place in read]),
        groups=[model.asked[place].cluster for place in read],
    )
    return LogLikelihood(mean.value, mean.low, mean.high, len(read))
