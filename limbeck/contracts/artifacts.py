"""Artifacts: folders with a `manifest.json` that records what they are and where they came from.

A content hash covers every file except the manifest and what the stage declares as measured (times
differ from run to run, answers do not).
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from limbeck.contracts.config import Config
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.json_data import JsonMapping
from limbeck.contracts.pointers import follow

ArtifactKind = Literal["corpus", "checkpoint", "signals", "bundle", "router", "report"]
KINDS: tuple[ArtifactKind, ...] = get_args(ArtifactKind)
MANIFEST = "manifest.json"
CACHE = ".cache"
"""Folder beside artifacts, of `<cache>/<key>/`: what can be made again from one of them."""
MADE_FROM = "made_from.json"
"""In such a `<key>/`: the name of the artifact's folder."""
HashFile = Callable[[Path], str]
"""`hash_file`, or what gives the same from a record of earlier hashes."""


class Parent(Config):
    """One artifact that another was made from."""

    name: str
    path: str
    kind: ArtifactKind
    content_hash: str


class Manifest(Config):
    """What a folder is, what made it, and from what."""

    name: str
    kind: ArtifactKind
    stage: str
    key: str
    """Hash of everything the stage reads: equal keys mean the artifact can be reused."""
    content_hash: str
    parents: Mapping[str, tuple[Parent, ...]]
    """Field of the recipe entry to the artifacts it names."""
    sources: Mapping[str, str]
    """External files and folders to the hashes of their content."""
    recipe: JsonMapping
    """The resolved recipe entry."""
    versions: Mapping[str, str]
    files: Mapping[str, str]
    """Every file to its SHA-256, those with measurements too: damage shows, whatever it hits."""
    metrics: JsonMapping
    seconds: Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Artifact:
    """A folder on disk, with its manifest; a published checkpoint has a derived one."""

    path: Path
    manifest: Manifest
    entry: str = ""
    """The recipe entry that names it now, where that is another than the one that made it."""

    @property
    def name(self) -> str:
        """The recipe entry that names it, or else the one that made it."""
        return self.entry or self.manifest.name


OnStep = Callable[[int, int, Any], None]
"""`on_step(done, steps, model)`, called after `done` of `steps`.

It may read the model, not change it; what it raises ends the training.
"""


def ignore_step(done: int, steps: int, model: Any) -> None:
    """Does nothing after a training step."""


@dataclass(frozen=True)
class Work:
    """What a running stage is given: its inputs, and where to write."""

    name: str
    folder: Path
    """The artifact grows here."""
    state: Path
    """What a killed run needs to go on; dropped when the stage is done."""
    inputs: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)
    persistent: Path | None = None
    """The persistent folder, where it is another than the one beside `folder`."""
    on_step: OnStep = ignore_step
    """Called by a stage that trains, after each optimizer step."""

    @property
    def persistent_dir(self) -> Path:
        """Survives a changed recipe; holds paid API responses."""
        return self.persistent or self.folder.parent / "persistent"

    def one(self, name: str) -> Artifact:
        """The single artifact that a field names."""
        (artifact,) = self.inputs[name]
        return artifact

    def every(self, name: str) -> tuple[Artifact, ...]:
        """The artifacts that a field names; none where the recipe leaves it out."""
        return self.inputs.get(name, ())


def hash_text(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        ArtifactError: there is no such file.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; check the path in the recipe")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path, *, hash_file: HashFile = hash_file) -> dict[str, str]:
    """Each file below a folder, by its relative path, with its SHA-256."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.is_file() and relative != MANIFEST:
            found[relative] = hash_file(path)
    return found


def hash_path(path: Path, *, hash_file: HashFile = hash_file) -> str:
    """Hash of a file, or of every file below a folder."""
    if path.is_dir():
        return _hash_listing(hash_files(path, hash_file=hash_file))
    return hash_file(path)


def _hash_listing(files: Mapping[str, str]) -> str:
    return hash_text(json.dumps(files, sort_keys=True))


def size_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's text so that a kill leaves the old text or the new one, never half."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk, where the system has a handle to do so."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an artifact folder.

    Raises:
        ArtifactError: the folder or its manifest is missing or damaged.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder; make it with `limbeck run RECIPE`")
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(f"{folder}: no {MANIFEST}, so it is not an artifact of Limbeck")
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(
            f"{path}: damaged manifest ({error}); delete the folder and run again"
        ) from None


def is_plain_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a model or tokenizer of transformers that no stage of ours made."""
    marks = ("config.json", "tokenizer_config.json")
    return any((folder / name).is_file() for name in marks) and not (folder / MANIFEST).is_file()


def plain_checkpoint(folder: Path, *, files: Mapping[str, str], content_hash: str) -> Artifact:
    """A published checkpoint, with the manifest that its files stand for."""
    manifest = Manifest(
        name=folder.name,
        kind="checkpoint",
        stage="",
        key="",
        parents={},
        sources={},
        content_hash=content_hash,
        files=files,
        recipe={},
        versions={},
        metrics={},
        seconds=0.0,
    )
    return Artifact(folder, manifest)


def read_artifact(
    folder: Path, *, kinds: tuple[ArtifactKind, ...] = KINDS, hash_file: HashFile = hash_file
) -> Artifact:
    """The artifact in a folder; a transformers folder without a manifest counts as a checkpoint.

    Raises:
        ArtifactError: the folder is none, or of another kind than expected.
    """
    folder = folder if folder.is_dir() else follow(folder)
    if "checkpoint" in kinds and is_plain_checkpoint(folder):
        files = hash_files(folder, hash_file=hash_file)
        return plain_checkpoint(folder, files=files, content_hash=_hash_listing(files))
    manifest = read_manifest(folder)
    if manifest.kind not in kinds:
        raise ArtifactError(
            f"{folder}: is a {manifest.kind}, expected {' or '.join(kinds)}: name another artifact"
        )
    return Artifact(folder, manifest)


def find_damage(artifact: Artifact, *, hash_file: HashFile = hash_file) -> list[str]:
    """Files whose bytes are no longer those that the manifest records."""
    return [
        name
        for name, digest in artifact.manifest.files.items()
        if not (artifact.path / name).is_file() or hash_file(artifact.path / name) != digest
    ]
