"""Running a checked recipe: each stage in a folder of its own, or reused by hash.

An entry's key hashes its resolved config with every reference replaced by the content hash of what
it names, so a change reaches exactly what depends on it. Left out: what a stage does.
"""

import importlib.metadata
import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import limbeck
from limbeck.contracts.artifacts import (
    MANIFEST,
    Artifact,
    Manifest,
    Parent,
    Work,
    find_damage,
    hash_files,
    hash_path,
    hash_text,
    read_artifact,
    write_atomically,
)
from limbeck.contracts.config import resolve
from limbeck.contracts.errors import (
    ArtifactError,
    BusyError,
)
from limbeck.contracts.recipe import Recipe
from limbeck.contracts.stage import Reference
from limbeck.env.ranks import process_index
from limbeck.pipeline.check import Entry, check, is_folder
from limbeck.pipeline.distributed import Crew, open_process_group

VERSIONED = ("torch", "transformers", "accelerate", "tokenizers", "onnxruntime", "numpy")


def run(
    recipe: Recipe, *, runs: Path, report: Callable[[str, str], None] = lambda name, text: None
) -> dict[str, Artifact]:
    """Every artifact of the recipe, made now or reused.

    `report(name, text)` hears what happens to each entry.

    Of several processes that a launcher has started, the first one runs the recipe and the others
    join it where a stage trains; theirs is an empty result.

    Raises:
        RecipeError: the recipe cannot be run.
        BusyError: another process runs in the same folder.
        LaunchError: the processes cannot work together as they were launched.
    """
    entries = check(recipe)
    root = runs / recipe.name
    crew = open_process_group(entries)
    if process_index() > 0:
        crew.follow()
        return {}
    root.mkdir(parents=True, exist_ok=True)
    try:
        with closing(crew), FileLock(root / ".lock", timeout=0):
            artifacts: dict[str, Artifact] = {}
            for entry in entries.values():
                artifacts[entry.name] = _make_or_reuse(entry, root, artifacts, report, crew)
            return artifacts
    except Timeout:
        raise BusyError(
            f"{root}: another `limbeck run` is at work there; wait for it, or use --runs"
        ) from None


def _make_or_reuse(
    entry: Entry,
    root: Path,
    made: Mapping[str, Artifact],
    report: Callable[[str, str], None],
    crew: Crew,
) -> Artifact:
    inputs: dict[str, tuple[Artifact, ...]] = {}
    for reference in entry.references:
        artifact = made.get(reference.target) or open_external(reference)
        inputs[reference.field] = (*inputs.get(reference.field, ()), artifact)
    sources = {str(path): hash_path(path) for path in entry.config.external_paths()}
    key = _hash_key(entry, inputs, sources)
    folder = root / entry.name
    work_dir = root / ".work" / entry.name
    if (folder / MANIFEST).is_file():
        known = _read_known(folder)
        if known is None:
            report(entry.name, f"damaged ({MANIFEST}), made again")
        elif known.manifest.key == key:
            damage = find_damage(known)
            if not damage:
                report(entry.name, f"reused ({known.manifest.seconds:,.0f} s saved)")
                if _works_on(
                    work_dir, key
                ):  # what a kill between putting in place and clearing left
                    shutil.rmtree(work_dir)
                return known
            report(entry.name, f"damaged ({', '.join(damage[:3])}), made again")
    report(entry.name, f"{entry.config.stage} ...")
    artifact = _make(
        entry, folder, work_dir=work_dir, inputs=inputs, sources=sources, key=key, crew=crew
    )
    report(entry.name, f"done in {artifact.manifest.seconds:,.1f} s")
    return artifact


def _read_known(folder: Path) -> Artifact | None:
    try:
        return read_artifact(folder)
    except ArtifactError:
        return None


def _works_on(work_dir: Path, key: str) -> bool:
    """Whether a work folder belongs to the making of this very key."""
    return (work_dir / "key").is_file() and (work_dir / "key").read_text(errors="replace") == key


def open_external(reference: Reference) -> Artifact:
    """The artifact outside the recipe that a reference names: a folder, or a model of the hub."""
    path = Path(reference.target)
    if not is_folder(reference.target):
        fetch = resolve(
            {"hub": "limbeck.models.hub:fetch_checkpoint"}, "hub", what="source of checkpoints"
        )
        path = fetch(reference.target)
    return read_artifact(path, kinds=reference.kinds)


def _hash_key(
    entry: Entry, inputs: Mapping[str, tuple[Artifact, ...]], sources: Mapping[str, str]
) -> str:
    hashes = dict(sources)
    for field in inputs:
        targets = [item.target for item in entry.references if item.field == field]
        for target, artifact in zip(targets, inputs[field], strict=True):
            hashes[target] = artifact.manifest.content_hash

    def replace(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: replace(item) for name, item in value.items()}
        if isinstance(value, list):
            return [replace(item) for item in value]
        return hashes.get(value, value) if isinstance(value, str) else value

    resolved = entry.config.model_dump(mode="json")
    names = [item.target for item in entry.references] if entry.config.make == "report" else []
    return hash_text(
        json.dumps(
            [limbeck.__version__, replace(resolved), sorted(sources.values()), names],
            sort_keys=True,
        )
    )


def _make(
    entry: Entry,
    folder: Path,
    *,
    work_dir: Path,
    inputs: dict[str, tuple[Artifact, ...]],
    sources: Mapping[str, str],
    key: str,
    crew: Crew,
) -> Artifact:
    """Run a stage in a folder of its own, then put the whole artifact in place at once."""
    if not _works_on(work_dir, key):
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir(parents=True)
        write_atomically(work_dir / "key", key)
    work = Work(entry.name, work_dir / "artifact", work_dir / "state", inputs)
    work.folder.mkdir(exist_ok=True)
    work.state.mkdir(exist_ok=True)
    started = time.monotonic()
    metrics = crew.run(entry, work)
    files = hash_files(work.folder)
    measured = type(entry.config).measured
    content = {path: digest for path, digest in files.items() if path not in measured}
    manifest = Manifest(
        name=entry.name,
        kind=entry.config.make,
        stage=entry.config.stage,
        key=key,
        content_hash=hash_text(json.dumps(content, sort_keys=True)),
        parents={field: tuple(map(_describe_parent, items)) for field, items in inputs.items()},
        sources=sources,
        recipe=entry.config.model_dump(mode="json"),
        versions=versions(),
        files=files,
        metrics=metrics,
        seconds=time.monotonic() - started,
    )
    write_atomically(work.folder / MANIFEST, manifest.model_dump_json(indent=2))
    if folder.exists():
        old = work_dir / "replaced"
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    work.folder.rename(folder)
    shutil.rmtree(work_dir)
    return Artifact(folder, manifest)


def _describe_parent(artifact: Artifact) -> Parent:
    manifest = artifact.manifest
    return Parent(
        name=manifest.name,
        path=str(artifact.path),
        kind=manifest.kind,
        content_hash=manifest.content_hash,
    )


def versions() -> dict[str, str]:
    """Versions of what computes: Limbeck, Python, and the numeric libraries."""
    found = {"limbeck": limbeck.__version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
