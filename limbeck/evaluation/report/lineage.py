"""The ancestors of the evaluated models, up to the sources, each with its training curve."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.contracts.artifacts import MANIFEST, Artifact, Parent, read_artifact
from limbeck.contracts.errors import ArtifactError

logger = logging.getLogger(__name__)


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
    found: dict[str, LineageStep] = {}
    for artifact in artifacts:
        _visit(artifact, found)
    return list(found.values())


def _visit(artifact: Artifact, found: dict[str, LineageStep]) -> None:
    manifest = artifact.manifest
    if manifest.content_hash in found:
        return
    parents = [parent for group in manifest.parents.values() for parent in group]
    for parent in parents:
        known = _find(parent, near=artifact.path)
        if known is not None:
            _visit(known, found)
        elif parent.content_hash not in found:
            found[parent.content_hash] = LineageStep(
                parent.name, parent.kind, "", (), 0.0, parent.content_hash, (), {}, {}
            )
    names = tuple(dict.fromkeys(parent.name for parent in parents))
    found[manifest.content_hash] = LineageStep(
        artifact.name,
        manifest.kind,
        manifest.stage,
        names,
        manifest.seconds,
        manifest.content_hash,
        _read_history(artifact.path),
        _read_layers(artifact.path / "routing.json"),
        _read_layers(artifact.path / "router.json"),
    )


def _find(parent: Parent, *, near: Path) -> Artifact | None:
    """The parent where its child recorded it, or beside the child, if it is still the same."""
    for path in (Path(parent.path), near.parent / parent.path, near.parent / parent.name):
        if not (path / MANIFEST).is_file():
            continue
        try:
            artifact = read_artifact(path)
        except ArtifactError as error:
            logger.warning("lineage: %s", error)
            continue
        if artifact.manifest.content_hash == parent.content_hash:
            return artifact
    return None


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
