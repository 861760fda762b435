"""The artifact store: `<runs>/store/<stage>-<start of the key>/`, one folder an artifact.

Names under `<runs>/<recipe>/` point into it. An artifact grows in `.work/<key>`, is written through
to the disk, and is put in place by one renaming; so a kill leaves a whole artifact or none. Every
key has a lock: whoever makes, reuses or removes an artifact holds it.
"""

import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from limbeck.contracts.artifacts import (
    MANIFEST,
    Artifact,
    Manifest,
    find_damage,
    read_manifest,
    sync_folder,
    write_atomically,
)
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.pointers import follow, is_pointer, point
from limbeck.pipeline.file_hashes import FileHashes

STORE = "store"
KEY_DIGITS = (12, 20, 64)
"""Digits of a key in a folder's name: more where two keys begin alike."""
MANY_FILES = 256
"""Above it, one call writes everything that the system holds; one call a file would take longer."""


class Store:
    """All artifacts of a runs folder."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.root = runs / STORE
        self.hashes = FileHashes(self.root / ".hashes")

    def folder(self, key: str, *, stage: str) -> Path:
        """Where the artifact of a key lies, or is to be put."""
        for digits in KEY_DIGITS:
            path = self.root / f"{stage}-{key[:digits]}"
            manifest = read_if_whole(path)
            if manifest is None or manifest.key == key:
                return path
        raise AssertionError("two keys cannot be equal")

    def work_dir(self, key: str) -> Path:
        """Where the artifact of a key grows, beside what a killed run needs to go on."""
        return self.root / ".work" / key

    @contextmanager
    def hold(self, key: str, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold a key, after whoever holds it now; `on_wait` is called before a wait."""
        lock = self.lock(key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def frozen(self) -> FileLock:
        """Holds all references still: no name is switched, no input taken, nothing removed."""
        return self.lock("references")

    def lock(self, key: str) -> FileLock:
        """The lock of a key; it ends with the process that holds it."""
        folder = self.root / ".locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{key}.lock")

    def is_held(self, key: str) -> bool:
        """Whether a process works on a key now."""
        lock = self.lock(key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def key_of(self, path: Path) -> str:
        """The key of an artifact, or of half-made work."""
        manifest = read_if_whole(path)
        return manifest.key if manifest is not None else path.name

    def find_damage(self, folder: Path) -> list[str]:
        """What of an artifact is damaged; files that look untouched since are not read again."""
        manifest = read_if_whole(folder)
        if manifest is None:
            return [MANIFEST]
        return find_damage(Artifact(folder, manifest), hash_file=self.hashes.hash_file)

    def verify(self, artifact: Artifact) -> list[str]:
        """What of an artifact is damaged; every file is read."""
        return find_damage(artifact)

    def begin(self, key: str, *, name: str, inputs: Sequence[Artifact]) -> Path:
        """The work folder of a key, with what is made there and from what.

        Its `artifact` is empty, whatever a killed run left there (libraries write files under
        passing names of their own); its `state` is as that run left it.

        Raises:
            ArtifactError: an input was removed meanwhile.
        """
        work_dir = self.work_dir(key)
        if (work_dir / "artifact").exists():
            self.discard(work_dir / "artifact")
        for part in ("artifact", "state"):
            (work_dir / part).mkdir(parents=True, exist_ok=True)
        with self.frozen():
            gone = [item.path for item in inputs if not item.path.is_dir()]
            if gone:
                raise ArtifactError(f"{gone[0]}: was removed just now; run again to make it anew")
            content = {"name": name, "inputs": [item.path.name for item in inputs]}
            write_atomically(work_dir / "making.json", json.dumps(content))
        return work_dir

    def put(self, made: Path, *, manifest: Manifest) -> Artifact:
        """Move a whole artifact into its place; a damaged one there makes way."""
        _sync(made)
        while True:
            folder = self.folder(manifest.key, stage=manifest.stage)
            if folder.exists():
                self.discard(folder)
            try:
                made.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
                continue  # another key that begins alike came first
            sync_folder(self.root)
            return Artifact(folder, manifest)

    def discard(self, path: Path) -> None:
        """Take a folder out of sight at once, then remove it."""
        trash = self.root / ".trash"
        trash.mkdir(parents=True, exist_ok=True)
        moved = trash / f"{path.name}.{uuid.uuid4().hex[:8]}"
        path.rename(moved)
        shutil.rmtree(moved, ignore_errors=True)

    def empty_trash(self) -> None:
        """Remove what a kill kept from being removed."""
        shutil.rmtree(self.root / ".trash", ignore_errors=True)

    def point(self, name: Path, *, at: Path) -> None:
        """Switch a name to an artifact. What it pointed at before stays in the store."""
        with self.frozen():
            old = follow(name)
            for folder in {old, at}:
                _touch(folder)
            if not is_pointer(name) or old.resolve() != at.resolve():
                point(name, at=at)

    def adopt(self, name: Path) -> None:
        """Take an artifact that stands where a name belongs, as a copy does, into the store.

        Raises:
            ArtifactError: something else stands there.
        """
        if is_pointer(name) or not name.exists():
            return
        manifest = read_if_whole(name)
        if manifest is None:
            raise ArtifactError(f"{name}: in the way, and not an artifact; move it or delete it")
        with self.hold(manifest.key):
            folder = self.folder(manifest.key, stage=manifest.stage)
            if folder.exists():
                self.discard(name)
            else:
                name.rename(folder)
            self.point(name, at=folder)

    def artifacts(self) -> list[Artifact]:
        """Every artifact with a readable manifest, by the name of its folder."""
        found = [(path, read_if_whole(path)) for path in sorted(self.root.glob("[!.]*"))]
        return [Artifact(path, manifest) for path, manifest in found if manifest is not None]

    def names(self) -> dict[str, list[str]]:
        """Folders of the store to the names, such as `demo/int8`, that point at them."""
        found: dict[str, list[str]] = {}
        for name in sorted(_pointers(self.runs)):
            target = follow(name)
            if target.parent == self.root.resolve():
                found.setdefault(target.name, []).append(name.relative_to(self.runs).as_posix())
        return found


def _pointers(folder: Path) -> Iterator[Path]:
    """Every name below a folder; no artifact or store is searched."""
    for path in folder.glob("[!.]*"):
        if is_pointer(path):
            yield path
        elif path.is_dir() and path.name != STORE and not (path / MANIFEST).is_file():
            yield from _pointers(path)


def read_if_whole(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where it has none, or a damaged one."""
    try:
        return read_manifest(folder)
    except ArtifactError:
        return None


def _touch(folder: Path) -> None:
    """Note on the folder that it was in use until now; its files keep their times."""
    with suppress(FileNotFoundError, PermissionError):
        os.utime(folder)


def _sync(folder: Path) -> None:
    """Write a folder and all below through to the disk."""
    paths = list(folder.rglob("*"))
    if len(paths) > MANY_FILES and sys.platform != "win32":
        os.sync()
        return
    for path in paths:
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)
