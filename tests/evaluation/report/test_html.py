"""Charts and what feeds them: axes, damaged curve files, numbers as people read them."""

import dataclasses
import io
import json
import math
import xml.etree.ElementTree

import pytest
from pydantic import TypeAdapter
from rich.console import Console

from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.serialization import to_json
from limbeck.env.threads import ThreadChoice
from limbeck.evaluation.report import number_format
from limbeck.evaluation.report.build import Report, read_report
from limbeck.evaluation.report.charts import Bilingual, Point, fit_axis, lines, scatter, strips, svg
from limbeck.evaluation.report.html import render_html, render_markdown
from limbeck.evaluation.report.lineage import _read_history, _read_object, validate_load
from limbeck.evaluation.report.rows import Bounds, FloorRow
from limbeck.evaluation.report.same_runtime import RuntimeSpeedup
from limbeck.evaluation.report.terminal import make_table
from limbeck.evaluation.report.without_teacher import TeacherGain
from tests.support import tiny_recipe

TITLE = Bilingual("步 <1>", "step <1>")


def axis(values, scale="linear"):
    return fit_axis(values, title=TITLE, write=lambda value: f"{value:g}", scale=scale)


@pytest.mark.parametrize("values", [[0.0, 1.0], [5.0], [0.0], [0.8, 0.81], [1e-6, 3e-6]])
def test_an_axis_holds_its_values_and_has_few_ticks(values):
    found = axis(values)
    assert all(0 <= found.share(value) <= 1 for value in values)
    assert 1 <= len(found.ticks()) <= 8


@pytest.mark.parametrize("values", [[1.0, 1e6], [3.0], [2.0, 2.2], [1e5, 4e7]])
def test_a_log_axis_holds_its_values_and_has_few_ticks(values):
    found = axis(values, "log")
    assert all(0 <= found.share(value) <= 1 for value in values)
    assert len(found.ticks()) <= 8


def test_charts_are_well_formed_and_escape_names():
    points = [
        Point(Bilingual("a<b", "a<b"), 10.0 * index, 0.8, 0.7, 0.9, index) for index in (1, 2, 3)
    ]
    points.append(Point(TITLE, 40.0, 0.9, 0.9, 0.9, 0, is_reference=True))
    svgs = [
        scatter(points, x=axis([10.0, 40.0], "log"), y=axis([0.7, 0.9])),
        lines({"loss": [(0.0, 2.0), (9.0, 1.0)]}, x=axis([0.0, 9.0]), y=axis([1.0, 2.0])),
        strips({"0": [1, 0, 3], "<": [0, 0, 0]}, labels={"0": TITLE}),
    ]
    for drawing in svgs:
        xml.etree.ElementTree.fromstring(drawing)


def test_a_drawing_escapes_its_title_and_keeps_its_style():
    root = xml.etree.ElementTree.fromstring(
        svg(["<path/>"], width=3, height=2, title='a<"b', style="strips")
    )
    assert root.attrib == {
        "class": "strips",
        "viewBox": "0 0 3 2",
        "role": "img",
        "aria-label": 'a<"b',
    }
    assert len(root) == 1


def test_damaged_curves_and_loads_are_named(tmp_path):
    assert _read_history(tmp_path) == ()
    assert _read_object(tmp_path / "routing.json", validate_load) is None
    for text in ("{", "{}", json.dumps([{"step": 1}])):
        (tmp_path / "history.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"history\.json"):
            _read_history(tmp_path)
    for text in ("[", "[]", json.dumps({"layer": 1})):
        (tmp_path / "routing.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"routing\.json"):
            _read_object(tmp_path / "routing.json", validate_load)


def test_numbers_as_people_read_them():
    assert number_format.percent(0.9821) == "98.2 %"
    assert number_format.percent(None) == number_format.MISSING
    assert number_format.byte_count(8_700_000_000) == "8.7 GB"
    assert number_format.byte_count(480_000_000) == "480 MB"
    assert number_format.byte_count(12) == "12 B"
    assert number_format.counted(10_240_000) == "10.2 M"
    assert number_format.duration(0.0451) == "45.1 ms"
    assert number_format.times(18.04) == "18.0x"
    gain = TeacherGain("student", "alone", 0.0321, -0.004, 0.07, 9)
    assert number_format.points(gain) == "+3.2 (-0.4 – +7.0)"
    assert number_format.times_range(Bounds(1.0, math.pi)) == "1.0–3.1"


def test_published_reports_are_read_and_others_refused(tmp_path):
    paths = sorted((tiny_recipe.ROOT / "benchmarks" / "results").glob("*/report.json"))
    assert paths
    for path in paths:
        found = read_report(path)
        written = to_json(found)
        later = {"findings": {}, "load_by_threads": {}, "texts": {}, "labels": {}}
        later |= {"beaten_by": [], "beaten_in": {}}
        published = json.loads(path.read_text(encoding="utf-8"))
        assert written["rows"][0] | later == published["rows"][0] | later
        make_table(found)
    (tmp_path / "report.json").write_text('{"rows": []}')
    with pytest.raises(ArtifactError, match="not a report of this version"):
        read_report(tmp_path / "report.json")


def test_a_row_without_a_teacher_and_what_the_teacher_added_are_in_every_table():
    report = read_published("demo")
    rows = list(report.rows)
    place = [row.name for row in rows].index("student")
    training = "trained without a teacher (labels alone)"
    rows[place] = dataclasses.replace(rows[place], training=training)
    gain = TeacherGain("healed", "student", 0.0321, 0.011, 0.0532, 1200)
    speedup = RuntimeSpeedup("bundle", "teacher_bundle", "onnx", 2.04, 1.55, 2.61)
    report = dataclasses.replace(
        report, rows=tuple(rows), teacher_gains=(gain,), in_runtimes=(speedup,)
    )
    assert read_back(report).in_runtimes == (speedup,)
    assert read_back(report).teacher_gains == (gain,)
    text = render_markdown(report)
    assert "student (未用教师训练（仅用标签） trained without a teacher (labels alone)) |" in text
    assert "**healed - student**: +3.2 (+1.1 – +5.3), n=1200" in text
    assert "**bundle / teacher_bundle**: 2.0x (1.6–2.6)" in text
    answers = {row.name: [] for row in rows}
    page = render_html(report, answers=answers, steps=[])
    assert "trained without a teacher (labels alone)" in page and "+3.2 (+1.1 – +5.3)" in page
    stream = io.StringIO()
    Console(file=stream, width=200).print(make_table(report))
    shown = stream.getvalue()
    assert "labels alone" in shown and "healed minus student" in shown
    assert "bundle beside teacher_bundle, both in onnx: 2.0x (1.6–2.6) faster" in shown
    assert "2.0x (1.6–2.6)" in page


def read_published(name):
    """A committed report, with what the newest ones hold of their threads."""
    report = read_report(tiny_recipe.ROOT / "benchmarks" / "results" / name / "report.json")
    choice = ThreadChoice(1, "work is shared", 1, 1, 1)
    rows = [dataclasses.replace(row, default_threads=choice) for row in report.rows]
    return dataclasses.replace(report, rows=tuple(rows))


def read_back(report):
    return TypeAdapter(Report).validate_json(json.dumps(to_json(report)))


def test_a_floor_of_pixels_stands_among_the_images():
    report = read_published("chest-xray")
    (findings,) = [row.findings for row in report.rows[:1]]
    missing = dict.fromkeys(report.rows[0].tasks, "the question is an image")
    floor = FloorRow(
        name="linear",
        tasks={},
        missing=missing,
        accuracy=None,
        accuracy_interval=None,
        texts={},
        labels={},
        findings=findings,
    )
    report = dataclasses.replace(report, floors=(floor,))
    images = render_markdown(report).partition("## 影像")[2].partition("## 用时")[0]
    assert "| 底线 floor: 线性 linear | finding |" in images
    page = render_html(report, answers={row.name: [] for row in report.rows}, steps=[])
    assert page.count("Floor: ") >= 3
