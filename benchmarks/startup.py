"""Seconds until a command that starts no work answers: this checkout beside an earlier one.

Each command is a fresh process. The turns of both checkouts alternate, so that a busy neighbour
slows both; `user_seconds` and `system_seconds` are the processor's own time, which a neighbour
moves less.

    python benchmarks/startup.py --before PATH_OF_AN_EARLIER_CHECKOUT --json startup.json
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from reporting import environment, make_parser, medians, report

RECIPE = "recipes/tests/tiny.yaml"
COMMANDS = (
    "list",
    "show RUNS/tiny/bundle",
    "check recipes/demo.yaml",
    "plan recipes/demo.yaml",
    "plan recipes/reference-size.yaml",
    f"run {RECIPE} --runs RUNS",
)
"""RUNS is a folder in which the tiny recipe is finished already."""
LIBRARIES = "from transformers import AutoConfig"
"""What a plan of a published model needs: its configuration, which imports torch."""
TURNS = 5
QUICK_TURNS = 1
HERE = Path(__file__).parents[1]


def main() -> None:
    """Measure every command in every checkout and report."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--before", type=Path, help="an earlier checkout, measured in turns")
    parser.add_argument("--commands", nargs="*", default=COMMANDS, help="commands to measure")
    options = parser.parse_args()
    start = environment()
    checkouts = {"after": HERE} | ({"before": options.before} if options.before else {})
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: Path(folder) / name for name in checkouts}
        if any("RUNS" in command for command in options.commands):
            for name, path in checkouts.items():
                measure(f"run {RECIPE} --runs RUNS", checkout=path, runs=runs[name])
        rows = [
            {
                "checkout": name,
                "command": command,
                "turn": turn,
                **measure(command, checkout=path, runs=runs[name]),
            }
            for turn in range(QUICK_TURNS if options.quick else TURNS)
            for command in options.commands
            for name, path in checkouts.items()
        ]
        rows += [
            {
                "checkout": "after",
                "command": LIBRARIES,
                "turn": turn,
                **run(["-c", LIBRARIES], HERE),
            }
            for turn in range(QUICK_TURNS if options.quick else TURNS)
        ]
    end = [round(value, 2) for value in os.getloadavg()]
    commits = {name: commit(path) for name, path in checkouts.items()}
    report(
        options,
        environment={**start, "load_average_at_end": end, "commits": commits},
        rows=rows,
        ratios=compare(rows) if options.before else {},
        labels=("command", "checkout"),
    )
    print(f"load after {end}; commits {commits}")


def measure(command: str, *, checkout: Path, runs: Path) -> dict[str, float]:
    """Wall, user and system seconds of one command, run in a checkout and in its code."""
    words = ["-m", "limbeck.cli", *command.replace("RUNS", str(runs)).split()]
    return run(words, checkout)


def run(words: list[str], checkout: Path) -> dict[str, float]:
    """Wall, user and system seconds of Python with these arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *words],
        cwd=checkout,
        # Compiled files are kept, as wherever nobody forbids it.
        env={**os.environ, "PYTHONPATH": str(checkout.resolve()), "PYTHONDONTWRITEBYTECODE": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_seconds": round(wall, 3),
        "user_seconds": round(after.ru_utime - before.ru_utime, 3),
        "system_seconds": round(after.ru_stime - before.ru_stime, 3),
    }


def compare(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Median processor seconds before, by those after: above one is faster now."""
    middle = {
        (row["command"], row["checkout"]): row["user_seconds"] + row["system_seconds"]
        for row in medians(rows, labels=("command", "checkout"))
    }
    return {
        f"{command}: processor seconds before by after": round(
            seconds / middle[command, "after"], 2
        )
        for (command, checkout), seconds in middle.items()
        if checkout == "before"
    }


def commit(checkout: Path) -> str:
    """The commit of a checkout, and whether its files differ from it."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
