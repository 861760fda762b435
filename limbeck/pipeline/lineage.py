"""What an artifact was made from, up to the files that were read. Left out: drawing it."""

from collections.abc import Iterator
from pathlib import Path

from limbeck.contracts.artifacts import Artifact, Parent, read_artifact
from limbeck.contracts.errors import ArtifactError

LineageEntry = tuple[int, str, Artifact | Parent]
"""Depth, the field that names it, and the artifact; its parent entry where the folder is gone."""


def lineage(artifact: Artifact) -> Iterator[LineageEntry]:
    """An artifact and everything it was made from, deepest last; no ancestor is told twice."""
    yield from _ascend(artifact, depth=0, field="", told=set())


def _ascend(
    artifact: Artifact, *, depth: int, field: str, told: set[str]
) -> Iterator[LineageEntry]:
    yield depth, field, artifact
    if artifact.manifest.content_hash in told:
        return
    told.add(artifact.manifest.content_hash)
    for name, parents in artifact.manifest.parents.items():
        for parent in parents:
            try:
                above = read_artifact(Path(parent.path))
            except ArtifactError:
                yield depth + 1, name, parent
                continue
            yield from _ascend(above, depth=depth + 1, field=name, told=told)
