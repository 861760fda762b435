"""Benchmarks train what stages accept, replace no earlier run, and find the code they change."""

import importlib
import json
from pathlib import Path

import pytest

from limbeck.contracts.config import resolve
from limbeck.contracts.registry import STAGES


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path("benchmarks").resolve()))
    return importlib.import_module


def accept(entries):
    for entry in entries.values():
        resolve(STAGES, entry["stage"], what="stage").model_validate(entry)


@pytest.mark.parametrize("quick", [True, False])
def test_phases_of_progressive_training(benchmark, quick):
    accept(benchmark("progressive").list_entries(0, quick=quick))


def test_ways_of_distillation(benchmark, tmp_path):
    distillation = benchmark("distillation")
    accept(distillation.list_rows(tmp_path) | {"recorded": distillation.record(tmp_path)})


@pytest.mark.parametrize("name", ["fusion", "sparse_dense"])
def test_variants_of_the_mixture(benchmark, name):
    variants = benchmark(name).list_variants(5)
    accept(
        {
            variant.name: {
                "stage": "train",
                "corpus": "corpus",
                "model": variant.model,
                "objective": {"kind": "next_token"},
                "training": {"max_steps": variant.steps},
            }
            for variant in variants
        }
    )


def test_a_run_is_appended(benchmark, tmp_path):
    reporting = benchmark("reporting")
    path = tmp_path / "results" / "some.json"
    for number in range(3):
        reporting.append_run(path, {"rows": [number]})
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    assert [run["rows"] for run in runs] == [[0], [1], [2]]
    assert all(run["date"] for run in runs)


def test_a_file_of_another_form_is_left_alone(benchmark, tmp_path):
    path = tmp_path / "some.json"
    path.write_text('{"rows": []}', encoding="utf-8")
    with pytest.raises(SystemExit, match="runs"):
        benchmark("reporting").append_run(path, {"rows": []})
    assert path.read_text(encoding="utf-8") == '{"rows": []}'


def test_every_result_of_a_benchmark_holds_runs():
    for path in Path("benchmarks/results").rglob("*.json"):
        if path.name not in ("report.json", "card.json"):
            runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
            dates = [run["date"] for run in runs]
            assert dates and dates == sorted(dates), path


def test_a_median_has_its_interval(benchmark):
    middle, low, high = benchmark("reporting").median_interval([0.7, 1.0, 1.0, 1.1, 1.4])
    assert low <= middle <= high and middle == 1.0 and low < high


def test_what_a_dense_model_needs_is_interpolated_by_quality(benchmark):
    sparse_dense = benchmark("sparse_dense")
    names = ("weighted_sum", "dense_1", "dense_2")
    rows = [
        {"variant": name, "seed": seed, "validation_loss": loss, "accuracy": accuracy}
        for seed in (0, 1)
        for name, loss, accuracy in zip(names, (1.0, 2.0, 1.0), (0.5, 0.5, 0.9), strict=True)
    ]
    costs = {"weighted_sum": 10.0, "dense_1": 10.0, "dense_2": 40.0}
    found = {}
    for equal in ("loss", "accuracy"):
        found |= dict(sparse_dense.saved(rows, costs, what="flops", equal=equal))
    assert found["flops_saved_at_equal_loss"] == pytest.approx(0.75)
    assert found["flops_saved_at_equal_accuracy"] == pytest.approx(0.0)


def test_every_mutant_has_one_place_in_the_code(benchmark):
    for mutant in benchmark("mutations").MUTANTS:
        text = (Path("limbeck") / mutant.file).read_text(encoding="utf-8")
        assert text.count(mutant.old) == 1, mutant.name
