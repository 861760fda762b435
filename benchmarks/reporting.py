"""What every benchmark shares: its options, the machine it ran on, its table and its JSON.

A benchmark writes `{environment, rows, ratios}`. A row is one measurement; ratios are named numbers
whose two sides were measured in turns within one run, so that a busy neighbour slows both.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from limbeck.env.machine import cpu_name, package_versions

PACKAGES = ("torch", "transformers", "onnxruntime", "numpy", "liger_kernel", "triton", "trl")


def parse_options(description: str) -> argparse.Namespace:
    """The options of a benchmark: `json`, a path or nothing, and `quick`."""
    return make_parser(description).parse_args()


def make_parser(description: str) -> argparse.ArgumentParser:
    """As `parse_options`, for a benchmark that has more."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="write environment, rows and ratios here")
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
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def report(
    options: argparse.Namespace,
    *,
    environment: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    ratios: Mapping[str, float],
    labels: Sequence[str],
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
) -> None:
    """Print every row, the medians of rows with equal labels, and the ratios; write the JSON.

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
        content = {"environment": environment, "rows": rows, **tables, "ratios": ratios}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


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
