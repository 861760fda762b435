"""`accelerate launch` runs a recipe: the first process leads, the others join where it trains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support import tiny_recipe

LAUNCHERS = sorted((tiny_recipe.ROOT / "recipes" / "accelerate").glob("*.yaml"))
TRAINED = ("pretrained", "teacher", "student", "pruned")


def launch(recipe: Path, runs: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            tiny_recipe.ROOT / "recipes" / "accelerate" / "cpu.yaml",
            "-m",
            "limbeck.cli",
            "run",
            recipe,
            "--runs",
            runs,
        ],
        cwd=tiny_recipe.ROOT,
        capture_output=True,
        text=True,
        timeout=tiny_recipe.LONGEST_RUN_SECONDS,
        env=os.environ | {"PYTHONPATH": str(tiny_recipe.ROOT)},
    )


def read_losses(runs: Path, name: str) -> list[float]:
    history = json.loads((runs / "tiny" / name / "history.json").read_text())
    return [point["loss"] for point in history]


def test_two_processes_make_what_one_makes(tmp_path):
    runs = tiny_recipe.copy_runs(tmp_path / "runs", entries=("corpus",))
    recipe = tiny_recipe.write_part(tmp_path, "corpus", "signals", *TRAINED)
    done = launch(recipe, runs)
    assert done.returncode == 0, done.stderr
    for name in TRAINED:
        assert done.stderr.count(f"{name}: done in") == 1  # one process tells
        assert read_losses(runs, name) == pytest.approx(
            read_losses(tiny_recipe.runs(), name), rel=1e-5, abs=1e-5
        )
    assert done.stderr.count("corpus: reused") == 1
    assert not list((runs / "store" / ".work").glob("*"))
    log = tmp_path / "log"
    number = tiny_recipe.warm().start("run", recipe, "--runs", runs, output=log)
    assert tiny_recipe.warm().wait(number) == 0, log.read_text()
    assert log.read_text().count(": reused") == 2 + len(TRAINED)


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_launchers_files_are_what_accelerate_reads(path):
    from accelerate.commands.config.config_args import ClusterConfig

    found = ClusterConfig.from_yaml_file(path)
    kinds = {
        "cpu": "MULTI_CPU",
        "ddp": "MULTI_GPU",
        "fsdp2": "FSDP",
        "zero1": "DEEPSPEED",
        "zero2": "DEEPSPEED",
        "zero3": "DEEPSPEED",
    }
    assert str(found.distributed_type.value) == kinds[path.stem]
    if path.stem.startswith("zero"):
        assert found.deepspeed_config["zero_stage"] == int(path.stem[-1])
    raw = path.read_text()
    assert yaml.safe_load(raw)["mixed_precision"] == "no"
    assert f"--config_file recipes/accelerate/{path.name} -m limbeck.cli run" in raw
