"""Rows of the report: what is paired, pooled and compared with which model."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from limbeck.contracts.answerer import Size
from limbeck.env.threads import ThreadChoice
from limbeck.evaluation.answer_questions import AnsweredQuestion
from limbeck.evaluation.floors import Floor
from limbeck.evaluation.metrics import accuracy_ratio, clustered_interval, speed_ratio
from limbeck.evaluation.profiling.profile import Profile
from limbeck.evaluation.profiling.worker import Opened, Timing
from limbeck.evaluation.report.html import render_html, render_markdown
from limbeck.evaluation.report.rows import MeasuredModel, make_floor_rows, make_rows
from limbeck.evaluation.report.terminal import make_table
from tests.evaluation.report.test_html import read_published

COUNT = 60
GROUPS = [str(place // 3) for place in range(COUNT)]


def answers(correct, task="recall"):
    return tuple(
        AnsweredQuestion(
            id=f"{task}{place}",
            task=task,
            form="single",
            question="?",
            expected=("右",),
            specialty="",
            group=GROUPS[place],
            answer="右" if right else "左",
            correct=bool(right),
            agreement_ratio=float(right),
            confidence_ratio=1.0,
            option_scores=(),
        )
        for place, right in enumerate(correct)
    )


def measured(name, correct, *, seconds=((1.0, 2.0, 3.0), (4.0, 5.0, 9.0)), bytes=100):
    timings = {
        count + 1: tuple(Timing(value, 2) for value in values)
        for count, values in enumerate(seconds)
    }
    choice = ThreadChoice(1, "work is shared", 1, 1, 1)
    opened = Opened(Size(1000, 500, bytes), 7_000_000, 3_000_000, "VmHWM")
    asked = answers(correct) + answers(np.zeros(COUNT, dtype=bool), "refusal")
    return MeasuredModel(name, "checkpoint", name, 10, asked, Profile(opened, timings, {}, choice))


def make(*models, num_threads=1, floors=()):
    return make_rows(
        models,
        teacher="teacher",
        headline_tasks=("recall",),
        unknown_answers=("不知道",),
        num_threads=num_threads,
        floors=floors,
    )


TEACHER = np.arange(COUNT) % 5 > 0
STUDENT = TEACHER & (np.arange(COUNT) % 7 > 0)


def test_what_is_kept_is_paired_with_the_teachers_answers_and_grouped():
    teacher, student = make(measured("teacher", TEACHER), measured("student", STUDENT))
    known = accuracy_ratio(correct=STUDENT, reference=TEACHER, groups=GROUPS)
    assert known is not None
    assert student.kept_ratio == known.value
    assert student.kept_interval is not None and teacher.kept_interval is not None
    assert (student.kept_interval.low, student.kept_interval.high) == (known.low, known.high)
    assert (teacher.kept_interval.low, teacher.kept_interval.high) == (1.0, 1.0)
    pooled = clustered_interval(correct=STUDENT, groups=GROUPS)
    assert (student.accuracy_interval.low, student.accuracy_interval.high) == (
        pooled.low,
        pooled.high,
    )
    assert student.accuracy_interval.count == COUNT


@pytest.mark.parametrize("num_threads", [1, 2])
def test_times_are_those_of_the_threads_asked_for(num_threads):
    quick = ((0.5, 0.6, 30.0), (1.0, 1.25, 40.0))
    _, row = make(
        measured("teacher", TEACHER),
        measured("student", STUDENT, seconds=quick),
        num_threads=num_threads,
    )
    slow = ((1.0, 2.0, 3.0), (4.0, 5.0, 9.0))
    known = speed_ratio(
        seconds=np.array(quick[num_threads - 1]),
        reference_seconds=np.array(slow[num_threads - 1]),
    )
    assert row.latency_threads == num_threads
    assert row.latency_seconds.p50 == quick[num_threads - 1][1]
    assert row.latency_seconds.p50 == row.latency_by_threads[num_threads].p50
    assert row.tokens_per_second == row.latency_by_threads[num_threads].tokens_per_second
    assert row.speedup_ratio == known.value == (2.0 / 0.6, 4.0)[num_threads - 1]
    assert (row.speedup_interval.low, row.speedup_interval.high) == (known.low, known.high)


def test_memory_is_shown_as_measured_and_without_its_base():
    (row,) = make(measured("teacher", TEACHER))
    assert (row.peak_memory_bytes, row.base_memory_bytes) == (3_000_000, 7_000_000)


def test_questions_longer_than_a_model_reads_are_counted_in_every_table():
    whole, cut = measured("teacher", TEACHER), measured("student", STUDENT)
    asked = tuple(
        dataclasses.replace(item, is_too_long=place < 7)
        for place, item in enumerate(cut.answered_questions)
    )
    teacher, student = make(whole, dataclasses.replace(cut, answered_questions=asked))
    assert (teacher.num_too_long, student.num_too_long) == (None, 7)
    report = dataclasses.replace(read_published("demo"), rows=(teacher, student), floors=())
    page = render_html(report, answers={"teacher": [], "student": []}, steps=[])
    stream = io.StringIO()
    Console(file=stream, width=200).print(make_table(report))
    for text in (page, stream.getvalue()):
        assert "7 of 60 questions are longer than it reads" in text
    assert "**student**: 7 / 60 " in render_markdown(report)


def test_floors_are_pooled_over_the_headline_and_beat_only_what_is_worse():
    better = TEACHER | (np.arange(COUNT) < 10)
    floors = make_floor_rows(
        [
            Floor("majority", answers(STUDENT)),
            Floor("lookup", answers(better) + answers(TEACHER, "refusal")),
            Floor("linear", answers(better, "refusal"), {"recall": "too many different answers"}),
        ],
        headline_tasks=("recall",),
        language="",
    )
    assert [floor.accuracy for floor in floors] == [STUDENT.mean(), better.mean(), None]
    assert floors[2].accuracy_interval is None and floors[2].tasks.keys() == {"refusal"}
    teacher, student = make(
        measured("teacher", TEACHER), measured("student", STUDENT), floors=floors
    )
    assert teacher.beaten_by == student.beaten_by == ("lookup",)
    assert student.beaten_in == {"recall": ("lookup",), "refusal": ("lookup", "linear")}
    even = dataclasses.replace(measured("teacher", better), name="teacher")
    assert make(even, floors=floors)[0].beaten_by == ()
