"""SHA-256 of files, without reading again those that have not changed since they were hashed.

A file counts as unchanged while its size and both of its times are what they were. As in git's
index, a file that was written shortly before it was hashed is not recorded: a second change within
the resolution of the file system's clock would not show.
"""

import json
import time
from pathlib import Path

from limbeck.contracts.artifacts import hash_file, hash_text, write_atomically

CLOCK_RESOLUTION_NS = 2 * 10**9
"""The coarsest file system in use (FAT) keeps times in steps of two seconds."""
Stamp = list[int]


class FileHashes:
    """A record of hashes, in one JSON file for each folder of hashed files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tables: dict[Path, dict[str, tuple[Stamp, str]]] = {}
        self._changed: set[Path] = set()

    def hash_file(self, path: Path) -> str:
        """SHA-256 of a file's bytes.

        Raises:
            ArtifactError: there is no such file.
        """
        if not path.is_file():
            return hash_file(path)
        stamp, known = _stamp(path), self._table(path).get(path.name)
        if known is not None and known[0] == stamp:
            return known[1]
        hashed_at_ns = time.time_ns()
        digest = hash_file(path)
        if _stamp(path) == stamp:
            self.record(path, digest=digest, hashed_at_ns=hashed_at_ns)
        return digest

    def record(self, path: Path, *, digest: str, hashed_at_ns: int) -> None:
        """Note the hash of a file that has not changed since it was hashed at that time."""
        stamp = _stamp(path)
        if stamp[1] < hashed_at_ns - CLOCK_RESOLUTION_NS:
            self._table(path)[path.name] = (stamp, digest)
            self._changed.add(_parent(path))

    def save(self) -> None:
        """Write what was recorded; of two processes the last one wins, which costs a hash later."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for parent in self._changed:
            content = {"folder": str(parent), "files": self._tables[parent]}
            write_atomically(self._file(parent), json.dumps(content))
        self._changed.clear()

    def drop_missing(self) -> None:
        """Remove the records of folders that are gone."""
        for path in self._folder.glob("*.json"):
            content = _read(path)
            if not Path(content.get("folder", "")).is_dir():
                path.unlink(missing_ok=True)

    def _table(self, path: Path) -> dict[str, tuple[Stamp, str]]:
        parent = _parent(path)
        if parent not in self._tables:
            files = _read(self._file(parent)).get("files", {})
            self._tables[parent] = {name: (item[0], item[1]) for name, item in files.items()}
        return self._tables[parent]

    def _file(self, parent: Path) -> Path:
        return self._folder / f"{hash_text(str(parent))[:24]}.json"


def _parent(path: Path) -> Path:
    return path.parent.resolve()


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _read(path: Path) -> dict:
    """A record; empty where there is none, or a damaged one: it is made anew."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
