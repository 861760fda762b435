"""`report.json`: what was measured, on what, with which machine, as plain data."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from limbeck.evaluation.report.published_reference import REFERENCE

SCHEMA_VERSION = 1
LIBRARIES = ("limbeck", "torch", "transformers", "onnxruntime", "tokenizers", "numpy")
CPU_INFO = Path("/proc/cpuinfo")


def make_report(
    *,
    rows: Sequence[dict[str, Any]],
    teacher: str,
    headline_tasks: Sequence[str],
    corpus: Mapping[str, Any],
    environment: Mapping[str, Any],
    titles: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of `report.json`; `titles` names `tasks` and `specialties` for people."""
    return {
        "schema_version": SCHEMA_VERSION,
        "environment": dict(environment),
        "corpus": dict(corpus),
        "teacher": teacher,
        "headline_tasks": list(headline_tasks),
        "rows": list(rows),
        "titles": dict(titles),
        "reference": REFERENCE,
    }


def describe_environment() -> dict[str, Any]:
    """The machine and the libraries that the times belong to."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def _cpu_name() -> str:
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
