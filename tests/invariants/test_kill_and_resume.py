"""A run that is killed at any moment and started again ends with the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from tests.support import tiny_recipe

KILLS_PER_ENTRY = max(1, int(os.environ.get("LIMBECK_TEST_EXAMPLES", "100")) // 100)


def finished(log):
    text = log.read_text()
    assert "Traceback" not in text, text
    return text


def wait_for(text, log, number):
    """Whether the text came before the process ended."""
    while tiny_recipe.warm().wait(number, seconds=0.005) is None:
        if text in log.read_text():
            return True
    return False


def killed(name, runs, log, *, seconds):
    """Whether a run was killed so many seconds after it began an entry, or ended before."""
    log.write_text("")
    number = tiny_recipe.warm().start("run", tiny_recipe.RECIPE, "--runs", runs, output=log)
    if not wait_for(f"{name}: ", log, number):
        return False
    code = tiny_recipe.warm().wait(number, seconds=seconds)
    if code is not None:
        assert code == 0, log.read_text()
        return False
    if not tiny_recipe.kill(number):
        return False
    finished(log)
    return True


def whole(runs):
    """Nothing is left over and every entry is as in a run that nobody killed."""
    leftovers = [*runs.rglob("*.partial"), *runs.glob("store/.work/*")]
    assert not leftovers, leftovers
    return tiny_recipe.content_hashes(runs) == tiny_recipe.content_hashes(tiny_recipe.runs())


def test_killed_at_random_moments(tmp_path):
    """Within each entry; a run that ended before its kill is checked and begun anew there."""
    assert list(tiny_recipe.content_hashes(tiny_recipe.runs())) == sorted(tiny_recipe.ENTRIES)
    rng, log, runs, num_runs = random.Random(1), tmp_path / "log", tmp_path / "runs0", 1
    for index, name in enumerate(tiny_recipe.ENTRIES):
        manifest = tiny_recipe.runs() / "tiny" / name / "manifest.json"
        longest, kills = json.loads(manifest.read_text())["seconds"], 0
        while kills < KILLS_PER_ENTRY:
            if killed(name, runs, log, seconds=rng.uniform(0, longest)):
                kills += 1
            else:
                assert whole(runs)
                runs, num_runs = tmp_path / f"runs{num_runs}", num_runs + 1
                tiny_recipe.copy_runs(runs, entries=tiny_recipe.ENTRIES[:index])
    number = tiny_recipe.warm().start("run", tiny_recipe.RECIPE, "--runs", runs, output=log)
    assert tiny_recipe.warm().wait(number) == 0, log.read_text()
    assert whole(runs)


# A report has its processes made by then: here they are forks, and an interrupt of a fork is shown.
@pytest.mark.parametrize(
    ("name", "shown"), [("corpus", "corpus: "), ("student", "student: "), ("report", "floors: ")]
)
def test_interrupted(tmp_path, name, shown):
    before = tiny_recipe.ENTRIES[: tiny_recipe.ENTRIES.index(name)]
    runs, log = tiny_recipe.copy_runs(tmp_path / "runs", entries=before), tmp_path / "log"
    log.touch()
    number = tiny_recipe.warm().start("run", tiny_recipe.RECIPE, "--runs", runs, output=log)
    assert wait_for(shown, log, number), log.read_text()
    time.sleep(0.2)
    os.killpg(number, signal.SIGINT)
    assert tiny_recipe.warm().wait(number) == 130, log.read_text()
    assert "stopped; the same command goes on from here" in finished(log)
    recipe = tiny_recipe.write_part(tmp_path, *before, name)
    code = tiny_recipe.warm().wait(
        tiny_recipe.warm().start("run", recipe, "--runs", runs, output=log)
    )
    assert code == 0, log.read_text()
    assert (
        tiny_recipe.content_hashes(runs)[name]
        == tiny_recipe.content_hashes(tiny_recipe.runs())[name]
    )


def test_another_process_gives_the_same_bytes(tmp_path):
    """A fresh interpreter reuses what is there and makes the missing entries alike."""
    runs = tiny_recipe.copy_runs(tmp_path / "runs")
    shutil.rmtree(runs / "tiny" / "corpus")
    shutil.rmtree(runs / "tiny" / "student")
    done = subprocess.run(
        [sys.executable, "-m", "limbeck.cli", "run", tiny_recipe.RECIPE, "--runs", runs],
        cwd=tiny_recipe.ROOT,
        capture_output=True,
        text=True,
        timeout=tiny_recipe.LONGEST_RUN_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "corpus: done in" in done.stderr
    assert "student: done in" in done.stderr
    for name in set(tiny_recipe.ENTRIES) - {"corpus", "student"}:
        assert f"{name}: reused" in done.stderr
    assert "report.html" in done.stdout
    assert tiny_recipe.content_hashes(runs) == tiny_recipe.content_hashes(tiny_recipe.runs())


@pytest.mark.parametrize("name", tiny_recipe.ENTRIES)
def test_an_entry_made_alone_is_the_same(tmp_path, name):
    """Nothing that an earlier stage leaves in a process, such as a random state, reaches it."""
    before = tiny_recipe.ENTRIES[: tiny_recipe.ENTRIES.index(name)]
    runs, log = tiny_recipe.copy_runs(tmp_path / "runs", entries=before), tmp_path / "log"
    recipe = tiny_recipe.write_part(tmp_path, *before, name)
    code = tiny_recipe.warm().wait(
        tiny_recipe.warm().start("run", recipe, "--runs", runs, output=log)
    )
    assert code == 0, log.read_text()
    assert finished(log).count(": reused (") == len(before)
    assert (
        tiny_recipe.content_hashes(runs)[name]
        == tiny_recipe.content_hashes(tiny_recipe.runs())[name]
    )


def test_second_run_reuses_everything(tmp_path):
    runs, log = tiny_recipe.copy_runs(tmp_path / "runs"), tmp_path / "log"
    before = {path: path.stat().st_mtime_ns for path in (runs / "tiny").glob("*/*")}
    number = tiny_recipe.warm().start("run", tiny_recipe.RECIPE, "--runs", runs, output=log)
    assert tiny_recipe.warm().wait(number) == 0, log.read_text()
    assert finished(log).count(": reused (") == len(tiny_recipe.ENTRIES)
    assert {path: path.stat().st_mtime_ns for path in (runs / "tiny").glob("*/*")} == before


def test_two_at_once(tmp_path):
    runs, log = tmp_path / "runs", tmp_path / "log"
    (runs / "tiny").mkdir(parents=True)
    with FileLock(runs / "tiny" / ".lock"):
        number = tiny_recipe.warm().start("run", tiny_recipe.RECIPE, "--runs", runs, output=log)
        assert tiny_recipe.warm().wait(number) == 1
    text = " ".join(finished(log).split())
    assert "BusyError" in text
    assert "another `limbeck run` is at work there; wait for it, or use --runs" in text


def test_two_recipes_on_one_store_at_once(tmp_path):
    """Both want the same corpus: it is made whole, once, and each recipe's name leads to it."""
    runs, warm = tmp_path / "runs", tiny_recipe.warm()
    part = tiny_recipe.write_part(tmp_path, "corpus")
    recipes = [part.rename(tmp_path / "one.yaml"), tmp_path / "two.yaml"]
    shutil.copy(*recipes)
    logs = [tmp_path / recipe.stem for recipe in recipes]
    numbers = [
        warm.start("run", recipe, "--runs", runs, output=log)
        for recipe, log in zip(recipes, logs, strict=True)
    ]
    assert [warm.wait(number) for number in numbers] == [0, 0]
    texts = sorted(finished(log) for log in logs)
    assert sum("corpus: done in" in text for text in texts) == 1
    made = [(runs / recipe.stem / "corpus").resolve() for recipe in recipes]
    assert made[0] == made[1]
    assert not [*runs.rglob("*.partial"), *runs.glob("store/.work/*")]
