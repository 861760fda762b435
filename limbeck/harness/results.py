"""What lm-eval measured, as rows with 95 % intervals, for people and for programs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limbeck.contracts.json_data import Json, JsonMapping
from limbeck.evaluation.metrics import Z_95, wilson_interval

BINARY_TOLERANCE = 1e-6
"""Relative difference at which a standard error still is that of right or wrong answers."""


@dataclass(frozen=True)
class MetricRow:
    """One metric of one task for one model."""

    model: str
    task: str
    metric: str
    """As lm-eval names it; behind a comma the filter of the answers, where there is one."""
    value: float
    low: float | None
    """Of the 95 % interval; None where lm-eval has no standard error for the metric."""
    high: float | None
    num_questions: int
    num_available: int
    split: str
    """Of the task's data; for a group of tasks, `group`."""
    num_fewshot: int
    higher_is_better: bool | None
    """None where the task does not say."""


def read_rows(results: JsonMapping, *, model: str) -> list[MetricRow]:
    """The rows of one model, from what `lm_eval.evaluator.evaluate` returned."""
    rows = []
    for task, measured in results["results"].items():
        counts = results["n-samples"].get(task)
        config = results["configs"].get(task, {})
        num = measured["sample_len"] if counts is None else counts["effective"]
        directions = results["higher_is_better"].get(task) or {}
        for key, value in measured.items():
            name, _, answer_filter = key.partition(",")
            if not answer_filter or name.endswith("_stderr") or not _is_number(value):
                continue
            low, high = interval(value, stderr=measured[f"{name}_stderr,{answer_filter}"], num=num)
            rows.append(
                MetricRow(
                    model=model,
                    task=task,
                    metric=name if answer_filter == "none" else f"{name},{answer_filter}",
                    value=float(value),
                    low=low,
                    high=high,
                    num_questions=num,
                    num_available=num if counts is None else counts["original"],
                    split="group" if counts is None else _split(config),
                    num_fewshot=int(results["n-shot"].get(task) or 0),
                    higher_is_better=directions.get(name),
                )
            )
    return rows


def interval(value: float, *, stderr: Json, num: int) -> tuple[float | None, float | None]:
    """The 95 % interval of a metric, from its standard error and the number of questions.

    Right or wrong answers are recognised by their standard error, which then follows from the
    share; they get Wilson's interval, which is not empty at 0 and at 1. Everything else gets the
    normal one.
    """
    if not _is_number(stderr):
        return None, None
    if 0 <= value <= 1 and num > 1:
        binary = math.sqrt(value * (1 - value) / (num - 1))
        if abs(stderr - binary) <= BINARY_TOLERANCE * max(binary, BINARY_TOLERANCE):
            share = wilson_interval(round(value * num), num)
            return share.low, share.high
    return value - Z_95 * stderr, value + Z_95 * stderr


def order_rows(rows: Sequence[MetricRow]) -> list[MetricRow]:
    """Task by task and metric by metric, the models of each together."""
    places = {(row.task, row.metric): place for place, row in reversed(list(enumerate(rows)))}
    return sorted(rows, key=lambda row: places[row.task, row.metric])


def _split(config: Mapping[str, Json]) -> str:
    return config.get("test_split") or config.get("validation_split") or ""


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
