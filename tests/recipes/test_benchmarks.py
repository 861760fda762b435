"""What the benchmarks would train is what the stages accept."""

import importlib
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
