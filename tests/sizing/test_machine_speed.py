"""The machine's speed is measured by numpy or torch, with the same number of threads."""

import itertools
import os
import subprocess
import sys
import types

import pytest

from limbeck.sizing import machine_speed

PROGRAM = """
import sys
from limbeck.sizing import machine_speed
machine_speed.has_gpu = lambda: False
speed = machine_speed.measure_speed(seconds=0.01)
print(speed.device, speed.num_threads, "torch" in sys.modules)
"""


def test_numpy_measures_with_the_threads_that_the_environment_sets():
    stated = {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    kept = {name: value for name, value in os.environ.items() if name != "MKL_NUM_THREADS"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=kept | stated, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cpu", "2", "False"]


@pytest.mark.parametrize("reason", ["imported", "gpu", "two libraries"])
def test_torch_measures_where_numpy_should_not(monkeypatch, reason):
    if reason != "imported":
        monkeypatch.delitem(machine_speed.sys.modules, "torch")
    if reason == "two libraries":
        pools = machine_speed.ThreadpoolController()
        pools.lib_controllers = [*pools.lib_controllers, *pools.lib_controllers]
        monkeypatch.setattr(machine_speed, "ThreadpoolController", lambda: pools)
    monkeypatch.setattr(machine_speed, "has_gpu", lambda: reason == "gpu")
    by_torch = machine_speed.Speed(1.0, "cuda", 7)
    monkeypatch.setattr(machine_speed, "measure_with_torch", lambda seconds: by_torch)
    assert machine_speed.measure_speed() == by_torch


def test_both_measure_operations_a_second(monkeypatch):
    """By a clock that goes on by a hundredth of a second each time that it is read."""
    ticks = itertools.count()
    clock = types.SimpleNamespace(perf_counter=lambda: next(ticks) / 100)
    monkeypatch.setattr(machine_speed, "time", clock)
    expected = pytest.approx(2 * machine_speed.SIDE**3 * 100)
    assert machine_speed.measure_with_numpy(seconds=0.05) == expected
    assert machine_speed.measure_with_torch(seconds=0.05).flops_per_second == expected


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "2"}, 2),
        ({"OMP_NUM_THREADS": "many"}, 5),
        ({"OMP_NUM_THREADS": "0"}, 5),
        ({}, 5),
    ],
)
def test_threads_are_stated_or_one_a_core(monkeypatch, environment, threads):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machine_speed.sys, "platform", "linux")
    monkeypatch.setattr(machine_speed.os, "sched_getaffinity", lambda _: set(range(10)))
    monkeypatch.setattr(machine_speed.psutil, "cpu_count", lambda logical: 5)
    assert machine_speed.count_threads() == threads


@pytest.mark.parametrize(("file", "found"), [("nvidia0", True), ("kfd", True), ("null", False)])
def test_a_gpu_shows_in_the_devices(monkeypatch, tmp_path, file, found):
    (tmp_path / file).touch()
    monkeypatch.setattr(machine_speed, "DEVICES", tmp_path)
    monkeypatch.setattr(machine_speed.shutil, "which", lambda name: None)
    assert machine_speed.has_gpu() is found


def test_a_gpu_shows_by_its_program(monkeypatch, tmp_path):
    monkeypatch.setattr(machine_speed, "DEVICES", tmp_path)
    monkeypatch.setattr(machine_speed.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert machine_speed.has_gpu()
