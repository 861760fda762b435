"""What every benchmark shares: its options, the machine it ran on, its table and its JSON.

A result file holds `{runs: [{date, environment, rows, ratios}]}`, newest last: a run is appended
and replaces none, so that a run which missed a goal stays beside the one that met it. The date of a
run from before this form is that of its commit. A row is one measurement; ratios are named numbers
whose two sides were measured in turns within one run, so that a busy neighbour slows both.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from limbeck.env.machine import cpu_name, package_versions

PACKAGES = ("torch", "transformers", "onnxruntime", "numpy", "liger_kernel", "triton", "trl")


def parse_options(description: str) -> argparse.Namespace:
    """The options of a benchmark: `json`, a path or nothing, and `quick`."""
    return make_parser(description).parse_args()


def make_parser(description: str) -> argparse.ArgumentParser:
    """As `parse_options`, for a benchmark that has more."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="append the run to this file")
    parser.add_argument("--quick", action="store_true", help="fewer turns, for a first look")
    return parser


def environment() -> dict[str, Any]:
    """The machine, its load before the benchmark, and the versions in use."""
    return {
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": package_versions(PACKAGES, absent="not installed"),
        "command": " ".join([Path(sys.argv[0]).name, *map(_shorten, sys.argv[1:])]),
    }


def _shorten(word: str) -> str:
    """An absolute path as its last two parts: where else it lies is the machine's own matter."""
    return "/".join(Path(word).parts[-2:]) if word.startswith("/") else word


def report(
    options: argparse.Namespace,
    *,
    environment: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    ratios: Mapping[str, float],
    labels: Sequence[str],
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
) -> None:
    """Print every row, the medians of rows with equal labels, and the ratios; append the run.

    `tables` are rows of other columns under names of their own, shown and kept the same way.
    """
    processor = f"{environment['cpu']}, {environment['cpu_count']} CPUs"
    load = f"load before {environment['load_average']}"
    print("; ".join([environment["gpu"] or "no GPU", processor, load]))
    print_table(rows)
    print("\nmedians")
    print_table(medians(rows, labels=labels))
    for name, others in tables.items():
        print(f"\n{name}, medians")
        print_table(medians(others, labels=labels))
    print("\nratios")
    for name, value in ratios.items():
        print(f"  {name} = {value:.3g}")
    if options.json is not None:
        run = {"environment": environment, "rows": rows, **tables, "ratios": ratios}
        append_run(options.json, run)


def append_run(path: Path, run: Mapping[str, Any]) -> None:
    """Put a run, with the time of writing, behind those that the file holds."""
    runs = read_runs(path) if path.exists() else []
    date = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"runs": [*runs, {"date": date, **run}]}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def read_runs(path: Path) -> list[dict[str, Any]]:
    """The runs of a result file, newest last; an error where the file holds something else."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("runs"), list):
        raise SystemExit(f"{path}: expected {{'runs': [...]}}; nothing was written to it")
    return content["runs"]


def median_interval(
    values: Sequence[float], *, num_samples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """The median with its 95 % interval, by a bootstrap over the values."""
    drawn = np.random.default_rng(seed).choice(values, size=(num_samples, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return statistics.median(values), float(low), float(high)


def name_interval(name: str, found: tuple[float, float, float]) -> dict[str, float]:
    """A value and its interval as ratios: `name`, `name_low`, `name_high`."""
    return {name + part: v for part, v in zip(("", "_low", "_high"), found, strict=True)}


def medians(rows: Iterable[Mapping[str, Any]], *, labels: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each combination of labels, with the median of every other number.

    A number that was not measured is None.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[label] for label in labels), []).append(row)
    found = []
    for key, members in groups.items():
        numbers = [
            name
            for name, value in members[0].items()
            if name not in (*labels, "turn") and isinstance(value, int | float)
        ]
        middle = {
            name: statistics.median(row[name] for row in members if row[name] is not None)
            for name in numbers
        }
        found.append(dict(zip(labels, key, strict=True)) | middle)
    return found


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows under their names, in columns."""
    if not rows:
        return
    names = list(rows[0])
    cells = [names, *([_show(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    for line in cells:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def _show(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
