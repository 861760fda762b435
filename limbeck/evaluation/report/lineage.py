"""The ancestors of the evaluated models, up to the sources, each with its training curve."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from limbeck.contracts.artifacts import Artifact
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.lineage import Ancestor, trace_lineage
from limbeck.evaluation.report.number_format import Number

T = TypeVar("T")


@dataclass(frozen=True)
class CurvePoint:
    """What was logged after a step."""

    step: Number
    phase: str
    values: Mapping[str, Number | None]
    """None where it is no finite number."""


@dataclass(frozen=True)
class ExpertLoad:
    """`routing.json`: how often a router picks each expert."""

    layers: tuple[tuple[Number, ...], ...]
    by_specialty: Mapping[str, tuple[tuple[Number, ...], ...]] = field(default_factory=dict)
    entropy_ratios: tuple[float, ...] = ()
    skipped_ratio: float | None = None


@dataclass(frozen=True)
class ExpertGapSummary:
    """`router.json`: how far a student is from its teacher, by the teacher's first expert."""

    kl: float
    numbers: tuple[int, ...]
    """Of the layers, counted from 1."""
    layers: tuple[tuple[Number, ...], ...]


@dataclass(frozen=True)
class LineageStep:
    """One artifact on the way: what made it, from what, and how long that took."""

    name: str
    kind: str
    stage: str
    parents: tuple[str, ...]
    seconds: float
    content_hash: str
    history: tuple[CurvePoint, ...]
    """Its training curve; empty for what was not trained."""
    routing: ExpertLoad | None
    """Its experts' load; None for what has no experts."""
    missed: ExpertGapSummary | None
    """How far it is from each expert of its teacher; None where that was not measured."""


validate_points = TypeAdapter(tuple[Mapping[str, object], ...]).validate_python
validate_load = TypeAdapter(ExpertLoad).validate_python
validate_gap = TypeAdapter(ExpertGapSummary).validate_python


def trace(artifacts: Sequence[Artifact]) -> list[LineageStep]:
    """Every artifact that these come from, parents first; one that is gone appears by name."""
    return [_describe(item) for root in trace_lineage(artifacts) for item in root.sources_first()]


def _describe(ancestor: Ancestor) -> LineageStep:
    artifact = ancestor.artifact
    return LineageStep(
        ancestor.name,
        ancestor.kind,
        artifact.manifest.stage if artifact else "",
        tuple(dict.fromkeys(parent.name for parent in ancestor.parents)),
        artifact.manifest.seconds if artifact else 0.0,
        ancestor.content_hash,
        _read_history(artifact.path) if artifact else (),
        _read_object(artifact.path / "routing.json", validate_load) if artifact else None,
        _read_object(artifact.path / "router.json", validate_gap) if artifact else None,
    )


def _read_history(folder: Path) -> tuple[CurvePoint, ...]:
    points = _read_object(folder / "history.json", validate_points) or ()
    return tuple(_read_point(point, path=folder / "history.json") for point in points)


def _read_point(point: Mapping[str, object], *, path: Path) -> CurvePoint:
    step = point.get("step")
    if not isinstance(step, Number) or "loss" not in point:
        raise ArtifactError(
            f"{path}: expected a list of objects with 'step' and 'loss'; make the checkpoint again"
        )
    values = {
        name: value if isinstance(value, Number) and math.isfinite(value) else None
        for name, value in point.items()
    }
    return CurvePoint(step, str(point.get("phase", "")), values)


def _read_object(path: Path, validate: Callable[[object], T]) -> T | None:
    """What a checkpoint's file holds; None where it has none."""
    if not path.is_file():
        return None
    try:
        return validate(json.loads(path.read_bytes()))
    except ValueError as error:
        found = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ArtifactError(
            f"{path}: not as this version writes it ({found}); make the checkpoint again"
        ) from None
