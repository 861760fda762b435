"""What an artifact was made from, up to the files that were read."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.artifacts import (
    MANIFEST,
    Artifact,
    ArtifactKind,
    Parent,
    is_plain_checkpoint,
    plain_checkpoint,
    read_artifact,
)
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.pointers import follow

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ancestor:
    """An artifact as its child names it, with what it was made from in turn."""

    name: str
    kind: ArtifactKind
    content_hash: str
    field: str
    """The field of the child's recipe entry; empty for the artifact that the walk begins with."""
    artifact: Artifact | None
    """None where the folder is gone, or holds other content by now."""
    parents: tuple["Ancestor", ...]
    is_repeated: bool
    """Whether it stands earlier in the walk; its parents stand there only."""

    def walk(self, *, depth: int = 0) -> Iterator[tuple[int, "Ancestor"]]:
        """This one and all that it was made from, each with its depth, children first."""
        yield depth, self
        for parent in self.parents:
            yield from parent.walk(depth=depth + 1)

    def sources_first(self) -> Iterator["Ancestor"]:
        """All that it was made from, then this one; none twice."""
        for parent in self.parents:
            yield from parent.sources_first()
        if not self.is_repeated:
            yield self


def trace_lineage(artifacts: Sequence[Artifact]) -> list[Ancestor]:
    """The ancestry of each artifact; what two of them share is expanded in the first."""
    seen: set[str] = set()
    return [_trace(item, name=item.name, field="", seen=seen) for item in artifacts]


def _trace(artifact: Artifact, *, name: str, field: str, seen: set[str]) -> Ancestor:
    manifest = artifact.manifest
    is_repeated = manifest.content_hash in seen
    seen.add(manifest.content_hash)
    parents = () if is_repeated else _trace_parents(artifact, seen)
    return Ancestor(
        name, manifest.kind, manifest.content_hash, field, artifact, parents, is_repeated
    )


def _trace_parents(artifact: Artifact, seen: set[str]) -> tuple[Ancestor, ...]:
    found = []
    for field, parents in artifact.manifest.parents.items():
        for parent in parents:
            known = find_parent(parent, near=artifact.path)
            if known is not None:
                found.append(_trace(known, name=parent.name, field=field, seen=seen))
                continue
            repeated = parent.content_hash in seen
            seen.add(parent.content_hash)
            found.append(
                Ancestor(parent.name, parent.kind, parent.content_hash, field, None, (), repeated)
            )
    return tuple(found)


def find_parent(parent: Parent, *, near: Path) -> Artifact | None:
    """The parent where its child recorded it, or beside the child, if it is still the same.

    A published checkpoint is found by its folder alone: to hash it would take minutes.
    """
    recorded = Path(parent.path)
    for path in (recorded, near.resolve().parent / recorded.name, near.parent / parent.name):
        if is_plain_checkpoint(path):
            return plain_checkpoint(path, files={}, content_hash=parent.content_hash)
        if not (follow(path) / MANIFEST).is_file():
            continue
        try:
            artifact = read_artifact(path)
        except ArtifactError as error:
            logger.warning("lineage: %s", error)
            continue
        if artifact.manifest.content_hash == parent.content_hash:
            return artifact
    return None
