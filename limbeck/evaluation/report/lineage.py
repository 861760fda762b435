"""The ancestors of the evaluated models, up to the sources, each with its training curve."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.contracts.artifacts import Artifact
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.lineage import Ancestor, trace_lineage


@dataclass(frozen=True)
class LineageStep:
    """One artifact on the way: what made it, from what, and how long that took."""

    name: str
    kind: str
    stage: str
    parents: tuple[str, ...]
    seconds: float
    content_hash: str
    history: tuple[dict[str, Any], ...]
    """Its training curve; empty for what was not trained."""
    routing: dict[str, Any]
    """Its experts' load; empty for what has no experts."""
    missed: dict[str, Any]
    """How far it is from each expert of its teacher; empty where nobody looked."""


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
        _read_layers(artifact.path / "routing.json") if artifact else {},
        _read_layers(artifact.path / "router.json") if artifact else {},
    )


def _read_history(folder: Path) -> tuple[dict[str, Any], ...]:
    value = _read_json(folder / "history.json")
    if value is None:
        return ()
    points = value if isinstance(value, list) else []
    good = [point for point in points if isinstance(point, dict) and {"step", "loss"} <= set(point)]
    if len(good) != len(points) or not isinstance(value, list):
        raise ArtifactError(
            f"{folder / 'history.json'}: expected a list of objects with 'step' and 'loss'; make "
            "the checkpoint again"
        )
    return tuple(good)


def _read_layers(path: Path) -> dict[str, Any]:
    value = _read_json(path)
    if value is None:
        return {}
    if not isinstance(value, dict) or not isinstance(value.get("layers"), list):
        raise ArtifactError(
            f"{path}: expected an object with 'layers', a list of a figure of each expert; make "
            "the checkpoint again"
        )
    return value


def _read_json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path}: not JSON ({error}); make the checkpoint again") from None
