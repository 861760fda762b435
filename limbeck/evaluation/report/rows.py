"""One row of the report for each model: accuracy, what was kept, speed and size, as plain data."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.evaluation.answer_questions import AnsweredQuestion, count_correct
from limbeck.evaluation.metrics import (
    accuracy_ratio,
    exact_match,
    speed_ratio,
    wilson_interval,
)
from limbeck.evaluation.profiling.profile import Profile
from limbeck.evaluation.roc_auc import measure_findings

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


def make_rows(
    models: Sequence[Measured],
    *,
    teacher: str,
    headline_tasks: Sequence[str],
    unknown_answers: Sequence[str],
    num_threads: int,
) -> list[dict[str, Any]]:
    """A row for each model, in order; ratios are against the teacher on the same questions."""
    reference = next(model for model in models if model.name == teacher)
    return [
        {
            "name": model.name,
            "kind": model.kind,
            "content_hash": model.content_hash,
            **_size(model, reference=reference),
            **_speed(model, reference=reference, num_threads=num_threads),
            **_quality(model, reference=reference, headline_tasks=headline_tasks),
            "refused": _refused(
                model.asked, headline_tasks=headline_tasks, unknown_answers=unknown_answers
            ),
        }
        for model in models
    ]


def _size(model: Measured, *, reference: Measured) -> dict[str, Any]:
    """Counts and bytes; the teacher counts as 2 bytes a parameter, also against itself."""
    size = model.profile.opened.size
    teacher_bytes = BFLOAT16_BYTES * reference.profile.opened.size.parameters
    counted_bytes = teacher_bytes if model is reference else size.weight_bytes
    return {
        "parameters": size.parameters,
        "active_parameters": size.active_parameters,
        "size_bytes": model.size_bytes,
        "weight_bytes": size.weight_bytes,
        "peak_memory_bytes": model.profile.opened.peak_memory_bytes,
        "base_memory_bytes": model.profile.opened.base_memory_bytes,
        "memory_method": model.profile.opened.memory_method,
        "memory_ratio": teacher_bytes / counted_bytes,
    }


def _speed(model: Measured, *, reference: Measured, num_threads: int) -> dict[str, Any]:
    latency = model.profile.latency(num_threads)
    ratio = speed_ratio(
        seconds=_seconds(model, num_threads), reference_seconds=_seconds(reference, num_threads)
    )
    return {
        "latency_seconds": {"p50": latency["p50"], "p95": latency["p95"]},
        "latency_threads": num_threads,
        "tokens_per_second": latency["tokens_per_second"],
        "latency_by_threads": {
            str(count): model.profile.latency(count) for count in model.profile.timings
        },
        "speedup_ratio": ratio.value,
        "speedup_interval": {"low": ratio.low, "high": ratio.high},
    }


def _seconds(model: Measured, num_threads: int) -> np.ndarray:
    return np.array([timing.seconds for timing in model.profile.timings[num_threads]])


def _quality(
    model: Measured, *, reference: Measured, headline_tasks: Sequence[str]
) -> dict[str, Any]:
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
    return {
        "tasks": {
            task: dataclasses.asdict(
                count_correct([item for item in model.asked if item.task == task])
            )
            for task in tasks
        },
        "accuracy": pooled.value,
        "accuracy_interval": {"low": pooled.low, "high": pooled.high, "count": pooled.count},
        "kept_ratio": kept.value if kept else None,
        "findings": measure_findings(model.asked),
        "kept_interval": {"low": kept.low, "high": kept.high} if kept else None,
        "specialties": {
            name: dataclasses.asdict(
                count_correct([item for item in headline if item.specialty == name])
            )
            for name in specialties
        },
    }


def _refused(
    asked: Sequence[AnsweredQuestion],
    *,
    headline_tasks: Sequence[str],
    unknown_answers: Sequence[str],
) -> dict[str, Any]:
    """How often the model said that it does not know, where an answer was generated."""
    generated = [item for item in asked if item.task in headline_tasks and item.form != "choice"]
    refused = sum(exact_match(item.answer, expected=unknown_answers) for item in generated)
    return dataclasses.asdict(wilson_interval(refused, len(generated)))
