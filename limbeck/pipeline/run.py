"""Running a checked recipe: each artifact is made in the store, or reused by its key."""

import json
import platform
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

import limbeck
from limbeck.contracts.artifacts import (
    MANIFEST,
    Artifact,
    HashFile,
    Manifest,
    OnStep,
    Parent,
    Work,
    hash_file,
    hash_files,
    hash_path,
    hash_text,
    ignore_step,
    read_artifact,
    write_atomically,
)
from limbeck.contracts.errors import ArtifactError, BusyError, Fault, RecipeError
from limbeck.contracts.pointers import follow, is_pointer
from limbeck.contracts.recipe import Recipe
from limbeck.contracts.stage import Reference
from limbeck.env.machine import package_versions
from limbeck.env.ranks import process_index
from limbeck.pipeline.cache_key import hash_key
from limbeck.pipeline.check import check
from limbeck.pipeline.distributed import RunStage, lead_workers, run_worker
from limbeck.pipeline.entry import Entry, is_folder, select_following, select_needed
from limbeck.pipeline.memory import check_memory
from limbeck.pipeline.store import STORE, Store, read_if_whole

VERSIONED = ("torch", "transformers", "accelerate", "tokenizers", "onnxruntime", "numpy")
ReportStatus = Callable[[str, str], None]
"""Called with an entry's name and what becomes of it."""


def run(
    recipe: Recipe,
    *,
    runs: Path,
    until: str = "",
    start: str = "",
    report: ReportStatus = lambda name, text: None,
    note: Callable[[str], None] = lambda text: None,
    on_step: OnStep = ignore_step,
) -> dict[str, Artifact]:
    """Every artifact of the recipe, made now or reused; with `until`, that one and what it needs.

    With `start`, that entry and what is made from it; what these need besides is taken as it stands
    under its name, whatever the recipe says of it now.

    `report(name, text)` is called with what happens to each entry, `note` with what will be done
    unasked, `on_step` after every step of training here.

    Of several processes that a launcher has started, the first one runs the recipe and the others
    join it where a stage trains; theirs is an empty result.

    Raises:
        RecipeError: the recipe cannot be run, or not in this machine's memory.
        UnknownNameError: no entry is called as `until` or `start`.
        ArtifactError: what `start` needs has not been made.
        BusyError: another process runs a recipe of this name.
        LaunchError: the processes cannot work together as they were launched.
    """
    entries = check(recipe, note=note)
    needed = select_needed(entries, [until]) if until else entries
    made_now = select_following(entries, start) if start else entries
    entries = {name: entry for name, entry in needed.items() if name in made_now}
    if not entries:
        raise RecipeError(
            recipe.path, [Fault("until", f"{until!r} is not made from {start!r}; leave one out")]
        )
    if Path(recipe.name).parts[0] == STORE:
        message = f"a recipe cannot be called {STORE}, as the folder of all artifacts is; rename it"
        raise RecipeError(recipe.path, [Fault("file name", message)])
    root = runs / recipe.name
    check_memory(recipe, entries, made=[name for name in entries if (root / name).exists()])
    if process_index() > 0:
        run_worker(entries)
        return {}
    root.mkdir(parents=True, exist_ok=True)
    try:
        with lead_workers() as run_stage, FileLock(root / ".lock", timeout=0):
            session = _Run(root, Store(runs), {}, report, run_stage, on_step)
            try:
                _take_standing(session, entries, recipe=recipe)
                for entry in entries.values():
                    session.made[entry.name] = _make_or_reuse(session, entry)
            finally:
                session.store.hashes.save()
            return {name: session.made[name] for name in entries}
    except Timeout:
        raise BusyError(
            f"{root}: another `limbeck run` is at work there; wait for it, or use --runs"
        ) from None


def make_needed(
    recipe: Recipe,
    entries: Mapping[str, Entry],
    *,
    names: Collection[str],
    runs: Path,
    report: ReportStatus,
) -> dict[str, Artifact]:
    """Some entries of a checked recipe and all that they are made from, made now or reused."""
    needed = select_needed(entries, names)
    part = replace(recipe, entries={name: recipe.entries[name] for name in needed})
    return run(part, runs=runs, report=report) if needed else {}


@dataclass(frozen=True)
class _Run:
    """What all entries of one run share."""

    root: Path
    """The folder of the recipe's names."""
    store: Store
    made: dict[str, Artifact]
    report: ReportStatus
    run_stage: RunStage
    on_step: OnStep


@dataclass(frozen=True)
class _Order:
    """An entry with everything that its key stands for."""

    entry: Entry
    inputs: dict[str, tuple[Artifact, ...]]
    sources: dict[str, str]
    key: str


def _take_standing(session: _Run, entries: Mapping[str, Entry], *, recipe: Recipe) -> None:
    """What the entries need of other entries, as it stands.

    Raises:
        ArtifactError: it has not been made.
    """
    for entry in entries.values():
        for reference in entry.references:
            name = reference.target
            if name not in recipe.entries or name in entries or name in session.made:
                continue
            if not (session.root / name).exists():
                raise ArtifactError(
                    f"{entry.name}: needs {name!r}, which has not been made in {session.root}; run "
                    "without --from"
                )
            artifact = read_artifact(follow(session.root / name), kinds=reference.kinds)
            session.made[name] = replace(artifact, entry=name)
            session.report(name, "taken as it stands")


def _make_or_reuse(session: _Run, entry: Entry) -> Artifact:
    name, store = session.root / entry.name, session.store
    store.adopt(name)
    order = _resolve(session, entry)
    with store.hold(
        order.key, on_wait=lambda: session.report(entry.name, "another process makes it; waiting")
    ):
        artifact = _find(session, order) or _make(session, order)
        store.point(name, at=artifact.path)
        shutil.rmtree(store.work_dir(order.key), ignore_errors=True)
    return replace(artifact, entry=entry.name)


def _resolve(session: _Run, entry: Entry) -> _Order:
    """Find what an entry reads, and hash it."""
    hashes = session.store.hashes
    inputs: dict[str, tuple[Artifact, ...]] = {}
    for reference in entry.references:
        artifact = session.made.get(reference.target)
        if artifact is None:
            artifact = open_external(reference, hash_file=hashes.hash_file)
        inputs[reference.field] = (*inputs.get(reference.field, ()), artifact)
    sources = {
        str(path): hash_path(path, hash_file=hashes.hash_file)
        for path in entry.config.external_paths()
    }
    return _Order(entry, inputs, sources, hash_key(entry, inputs=inputs, sources=sources))


def _find(session: _Run, order: _Order) -> Artifact | None:
    """The whole artifact of the key, if it is made already."""
    store, name = session.store, order.entry.name
    folder = store.folder(order.key, stage=order.entry.config.stage)
    if not folder.exists():
        return _finish(session, order)
    damage = store.find_damage(folder)
    if damage:
        session.report(name, f"damaged ({', '.join(damage[:3])}), made again")
        return None
    artifact = read_artifact(folder)
    session.report(name, f"reused ({artifact.manifest.seconds:,.0f} s saved)")
    return artifact


def _finish(session: _Run, order: _Order) -> Artifact | None:
    """The artifact that a kill kept from its place when it was whole already."""
    folder = session.store.work_dir(order.key) / "artifact"
    manifest = read_if_whole(folder)
    if manifest is None or session.store.find_damage(folder):
        return None
    session.report(order.entry.name, f"reused ({manifest.seconds:,.0f} s saved)")
    return session.store.put(folder, manifest=manifest)


def open_external(reference: Reference, *, hash_file: HashFile = hash_file) -> Artifact:
    """The artifact outside the recipe that a reference names: a folder, or a model of the hub."""
    path = Path(reference.target)
    if not is_folder(reference.target):
        from limbeck.models.hub import fetch_checkpoint

        path = fetch_checkpoint(reference.target)
    # The name may be switched while this run reads, so what counts is where it points now.
    artifact = read_artifact(follow(path), kinds=reference.kinds, hash_file=hash_file)
    return replace(artifact, entry=path.name) if is_pointer(path) else artifact


def _make(session: _Run, order: _Order) -> Artifact:
    """Run a stage in a folder of its own, then put the whole artifact in place at once."""
    entry, store = order.entry, session.store
    session.report(entry.name, f"{entry.config.stage} ...")
    inputs = [item for items in order.inputs.values() for item in items]
    name = (session.root / entry.name).relative_to(store.runs).as_posix()
    work_dir = store.begin(order.key, name=name, inputs=inputs)
    work = Work(
        entry.name,
        work_dir / "artifact",
        work_dir / "state",
        order.inputs,
        session.root / ".persistent" / entry.name,
        on_step=session.on_step,
    )
    started = time.monotonic()
    metrics = session.run_stage(entry, work)
    hashed_at_ns = time.time_ns()
    files = hash_files(work.folder)
    measured = type(entry.config).measured
    content = {path: digest for path, digest in files.items() if path not in measured}
    manifest = Manifest(
        name=entry.name,
        kind=entry.config.make,
        stage=entry.config.stage,
        key=order.key,
        content_hash=hash_text(json.dumps(content, sort_keys=True)),
        parents={
            field: tuple(map(_describe_parent, items)) for field, items in order.inputs.items()
        },
        sources=order.sources,
        recipe=entry.config.model_dump(mode="json"),
        versions=versions(),
        files=files,
        metrics=metrics,
        seconds=time.monotonic() - started,
    )
    # Written beside the artifact first, so that a kill leaves no half manifest among its files.
    write_atomically(work_dir / MANIFEST, manifest.model_dump_json(indent=2))
    (work_dir / MANIFEST).replace(work.folder / MANIFEST)
    artifact = store.put(work.folder, manifest=manifest)
    for path, digest in files.items():
        store.hashes.record(artifact.path / path, digest=digest, hashed_at_ns=hashed_at_ns)
    session.report(entry.name, f"done in {manifest.seconds:,.1f} s")
    return artifact


def _describe_parent(artifact: Artifact) -> Parent:
    manifest = artifact.manifest
    return Parent(
        name=artifact.name,
        path=str(artifact.path),
        kind=manifest.kind,
        content_hash=manifest.content_hash,
    )


def versions() -> dict[str, str]:
    """Versions of what computes: Limbeck, Python, and the numeric libraries."""
    own = {"limbeck": limbeck.__version__, "python": platform.python_version()}
    return own | package_versions(VERSIONED, absent="absent")
