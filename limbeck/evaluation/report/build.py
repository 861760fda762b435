"""`report.json`: what was measured, on what, with which machine, as plain data."""

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.env.machine import describe_machine, package_versions
from limbeck.evaluation.report.published_reference import REFERENCE

SCHEMA_VERSION = 1
LIBRARIES = ("limbeck", "torch", "transformers", "onnxruntime", "tokenizers", "numpy")


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
    versions = package_versions(LIBRARIES, absent="")
    return describe_machine() | {
        "libraries": {name: item for name, item in versions.items() if item}
    }
