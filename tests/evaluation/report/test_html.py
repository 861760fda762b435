"""Charts and what feeds them: axes, damaged curve files, numbers as people read them."""

import json
import math
import xml.etree.ElementTree

import pytest

from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.serialization import to_json
from limbeck.evaluation.report import number_format
from limbeck.evaluation.report.build import read_report
from limbeck.evaluation.report.charts import Bilingual, Point, fit_axis, lines, scatter, strips, svg
from limbeck.evaluation.report.lineage import _read_history, _read_object, validate_load
from limbeck.evaluation.report.rows import Bounds
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
