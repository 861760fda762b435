"""What of a store nothing needs any more, and its removal.

Needed is what a name points at, what the model registry knows, what a running process makes, and
everything that these were made from.
"""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import Timeout

from limbeck.contracts.artifacts import CACHE, MADE_FROM, MANIFEST, Artifact, size_bytes
from limbeck.pipeline.model_registry import ModelRegistry, roles
from limbeck.pipeline.store import Store

DAY_SECONDS = 24 * 60 * 60


@dataclass(frozen=True)
class Stored:
    """One artifact of the store."""

    folder: str
    kind: str
    stage: str
    names: tuple[str, ...]
    models: tuple[str, ...]
    """Served names whose history holds it."""
    size_bytes: int
    age_seconds: float
    """Since it was made."""
    unused_seconds: float
    """Since a name last pointed at it, or a run reused it."""
    is_referenced: bool


@dataclass(frozen=True)
class Collected:
    """What was removed, or would be."""

    removed: tuple[Stored, ...]
    half_made: tuple[str, ...]
    """Keys of interrupted work."""
    freed_bytes: int
    kept_young: int
    """Unreferenced artifacts that are not old enough yet."""


def list_store(store: Store, *, keep_days: float) -> list[Stored]:
    """Every artifact, and whether something needs it."""
    artifacts = {item.path.name: item for item in store.artifacts()}
    names, models = store.names(), _served(store, keep_days=keep_days)
    needed = _reach(artifacts, {*names, *models, *_inputs_of_work(store, keep_days=keep_days)})
    now = time.time()
    return [
        Stored(
            name,
            item.manifest.kind,
            item.manifest.stage,
            tuple(names.get(name, ())),
            tuple(models.get(name, ())),
            size_bytes(item.path),
            now - (item.path / MANIFEST).stat().st_mtime,
            now - item.path.stat().st_mtime,
            name in needed,
        )
        for name, item in artifacts.items()
    ]


def collect(store: Store, *, keep_days: float, dry_run: bool = False) -> Collected:
    """Remove what nothing needs and nothing has used for so many days.

    References stand still meanwhile; an artifact whose key a process holds is left alone.
    """
    oldest = keep_days * DAY_SECONDS
    removed, half_made, freed = [], [], 0
    with store.frozen():
        listed = [item for item in list_store(store, keep_days=keep_days) if not item.is_referenced]
        for item in listed:
            path = store.root / item.folder
            if item.unused_seconds >= oldest and _remove(store, path, dry_run=dry_run):
                removed.append(item)
                freed += item.size_bytes
        for work in _idle_work(store, oldest_seconds=oldest):
            size = size_bytes(work)
            if _remove(store, work, dry_run=dry_run):
                half_made.append(work.name)
                freed += size
        freed += _drop_cached(
            store,
            gone={item.folder for item in removed},
            in_use=_inputs_of_work(store, keep_days=keep_days),
            oldest_seconds=oldest,
            dry_run=dry_run,
        )
    if not dry_run:
        store.empty_trash()
        store.hashes.drop_missing()
    return Collected(tuple(removed), tuple(half_made), freed, len(listed) - len(removed))


def _drop_cached(
    store: Store, *, gone: set[str], in_use: set[str], oldest_seconds: float, dry_run: bool
) -> int:
    """Remove data made from artifacts that are gone, or that nothing has read for so long.

    Returns its bytes. A process that reads it keeps what it opened, or makes the data again; what
    running work may read stays, since a network file system takes the pages of a removed file.
    """
    freed, now = 0, time.time()
    for folder in sorted(store.root.glob(f"{CACHE}/*/*/")):
        name = _read_name(folder / MADE_FROM)
        with suppress(OSError):  # made again just now, or mapped, which Windows refuses
            is_gone = name in gone or not (store.root / name / MANIFEST).is_file()
            is_idle = now - folder.stat().st_mtime >= oldest_seconds and name not in in_use
            if is_gone or is_idle:
                size = size_bytes(folder)
                if not dry_run:
                    store.discard(folder)
                freed += size
    return freed


def _read_name(path: Path) -> str:
    """The name in a file; empty where it is missing or damaged, so its artifact counts as gone."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ""


def _remove(store: Store, path: Path, *, dry_run: bool) -> bool:
    """Whether nobody held it, so that it is gone, or would be."""
    held = store.lock(store.key_of(path))
    try:
        held.acquire(timeout=0)
    except Timeout:
        return False
    try:
        if not dry_run:
            store.discard(path)
    finally:
        held.release()
    return True


def _reach(artifacts: dict[str, Artifact], roots: set[str]) -> set[str]:
    """The roots and everything that they were made from."""
    by_content: dict[str, list[str]] = {}
    for name, item in artifacts.items():
        by_content.setdefault(item.manifest.content_hash, []).append(name)
    found: set[str] = set()
    queue = list(roots)
    while queue:
        name = queue.pop()
        if name in found or name not in artifacts:
            continue
        found.add(name)
        for parents in artifacts[name].manifest.parents.values():
            for parent in parents:
                own = Path(parent.path).name
                queue += [own] if own in artifacts else by_content.get(parent.content_hash, [])
    return found


def _served(store: Store, *, keep_days: float) -> dict[str, list[str]]:
    """Artifacts with a role under a served name, or in its history of the last days."""
    registry, found = ModelRegistry(store), {}
    since = datetime.now(UTC) - timedelta(days=keep_days)
    for name in registry.names():
        events = registry.history(name)
        recent = [item for item in events if item.time >= since]
        for event in {item.artifact: item for item in (*recent, *roles(events).values())}.values():
            found.setdefault(event.artifact, []).append(name)
    return found


def _inputs_of_work(store: Store, *, keep_days: float) -> set[str]:
    """What is read by work that goes on, or may."""
    idle = set(_idle_work(store, oldest_seconds=keep_days * DAY_SECONDS))
    found: set[str] = set()
    for path in store.root.glob(".work/*/making.json"):
        if path.parent not in idle:
            found |= set(json.loads(path.read_text(encoding="utf-8"))["inputs"])
    return found


def _idle_work(store: Store, *, oldest_seconds: float) -> list[Path]:
    """Interrupted work that nobody has gone on with for so long."""
    now = time.time()
    return [
        path
        for path in sorted(store.root.glob(".work/*"))
        if now - max(item.stat().st_mtime for item in (path, *path.rglob("*"))) >= oldest_seconds
        and not store.is_held(path.name)
    ]
