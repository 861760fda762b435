"""Which artifact answers under a served name, now and at any time before.

`<runs>/store/.registry/<name>.jsonl` grows by one line an event; one whole line is one switch. A
line that a kill tore is dropped by whoever writes next.
"""

import json
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock

from limbeck.contracts.artifacts import Artifact, hash_path, read_artifact
from limbeck.contracts.config import Config
from limbeck.contracts.errors import ArtifactError, UnknownNameError
from limbeck.contracts.pointers import follow
from limbeck.pipeline.store import Store

ServedRole = Literal["champion", "previous", "candidate"]
Action = Literal["promote", "propose", "rollback"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class HistoryEvent(Config):
    """One line of a name's history."""

    action: Action
    """An artifact becomes the champion, or the candidate, or the one before is champion again."""
    artifact: str
    """Its folder in the store."""
    key: str
    content_hash: str
    time: datetime
    by: str = ""
    report: str = ""
    """Where the gate report lay."""
    report_hash: str = ""


class ModelRegistry:
    """The histories of all served names of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = store.root / ".registry"

    def names(self) -> list[str]:
        """Every served name."""
        return sorted(path.stem for path in self._root.glob("*.jsonl"))

    def history(self, name: str) -> list[HistoryEvent]:
        """What happened to a name, oldest first.

        Raises:
            UnknownNameError: nothing was ever promoted under it.
        """
        path = self._path(name)
        if not path.is_file():
            raise UnknownNameError(name, known=self.names(), what="served name")
        whole = path.read_bytes().rpartition(b"\n")[0]
        try:
            return [HistoryEvent.model_validate_json(line) for line in whole.splitlines()]
        except ValueError as error:
            raise ArtifactError(f"{path}: a damaged line ({error}); restore the file") from None

    def stamp(self, name: str) -> str:
        """Another text after every event of a name; cheap enough for each second.

        Raises:
            UnknownNameError: nothing was ever promoted under it.
        """
        try:
            status = self._path(name).stat()
        except OSError:
            raise UnknownNameError(name, known=self.names(), what="served name") from None
        return f"{status.st_mtime_ns} {status.st_size}"

    def promote(
        self,
        name: str,
        artifact: Path,
        *,
        role: Literal["champion", "candidate"] = "champion",
        report: Path | None = None,
        by: str = "",
    ) -> HistoryEvent:
        """Make an artifact of the store the champion or the candidate of a name.

        Raises:
            ArtifactError: it is damaged, of another kind, or lies elsewhere.
        """
        found = read_artifact(follow(artifact), kinds=("checkpoint", "bundle"))
        if found.path.resolve().parent != self._store.root.resolve():
            raise ArtifactError(f"{artifact}: not in {self._store.root}; make it there by a recipe")
        damage = self._store.find_damage(found.path)
        if damage:
            raise ArtifactError(f"{artifact}: damaged ({', '.join(damage[:3])}); make it again")
        action = "promote" if role == "champion" else "propose"
        gate = ("", "") if report is None else (str(report), hash_path(report))
        with self._lock(name), self._store.frozen():
            if not found.path.is_dir():
                raise ArtifactError(f"{artifact}: was removed just now; make it again")
            return self._append(name, _event(action, found, by=by, gate=gate))

    def rollback(self, name: str, *, by: str = "") -> HistoryEvent:
        """Make the previous artifact of a name its champion again.

        Raises:
            ArtifactError: there is none, or it is gone.
        """
        with self._lock(name), self._store.frozen():
            line = champions(self.history(name))
            if len(line) < 2:
                raise ArtifactError(f"{name}: no champion before the present one to go back to")
            found = read_artifact(self._store.root / line[-2].artifact)
            return self._append(name, _event("rollback", found, by=by, gate=("", "")))

    def resolve(
        self, name: str, *, role: ServedRole = "champion", at: datetime | None = None
    ) -> Artifact:
        """The artifact that has a role under a name, now or at a time.

        Raises:
            ArtifactError: none has it.
        """
        events = [item for item in self.history(name) if at is None or item.time <= at]
        event = roles(events).get(role)
        if event is None:
            raise ArtifactError(f"{name}: has no {role}{f' at {at}' if at else ''}")
        return read_artifact(self._store.root / event.artifact)

    def _append(self, name: str, event: HistoryEvent) -> HistoryEvent:
        path = self._path(name)
        line = json.dumps(event.model_dump(mode="json"), ensure_ascii=False) + "\n"
        with path.open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # what a kill tore
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        return event

    def _lock(self, name: str) -> FileLock:
        self._root.mkdir(parents=True, exist_ok=True)
        self._path(name)
        return self._store.lock(f"registry-{name}")

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise ArtifactError(f"{name!r} cannot name a model; use letters, digits, '.', '_', '-'")
        return self._root / f"{name}.jsonl"


def champions(events: Sequence[HistoryEvent]) -> list[HistoryEvent]:
    """The champions in the order of their succession; a roll-back takes the last one off."""
    line: list[HistoryEvent] = []
    for event in events:
        if event.action == "promote":
            line.append(event)
        elif event.action == "rollback" and len(line) > 1:
            line.pop()
    return line


def roles(events: Sequence[HistoryEvent]) -> dict[ServedRole, HistoryEvent]:
    """Who has which role after these events; a candidate that was promoted is none any more."""
    line, found = champions(events), {}
    for role, place in (("champion", -1), ("previous", -2)):
        if len(line) >= -place:
            found[role] = line[place]
    candidates = [item for item in events if item.action == "propose"]
    if candidates:
        later = events[len(events) - events[::-1].index(candidates[-1]) :]
        if candidates[-1].artifact not in {item.artifact for item in later}:
            found["candidate"] = candidates[-1]
    return found


def answering(
    events: Sequence[HistoryEvent], *, start: datetime, end: datetime
) -> list[HistoryEvent]:
    """Every champion that answered in a span of time, in order."""
    switches = [item for item in events if item.action != "propose"]
    before = [item for item in switches if item.time <= start]
    return before[-1:] + [item for item in switches if start < item.time <= end]


def _event(
    action: Action,
    found: Artifact,
    *,
    by: str,
    gate: tuple[str, str],
) -> HistoryEvent:
    return HistoryEvent(
        action=action,
        artifact=found.path.resolve().name,
        key=found.manifest.key,
        content_hash=found.manifest.content_hash,
        time=datetime.now(UTC),
        by=by,
        report=gate[0],
        report_hash=gate[1],
    )
