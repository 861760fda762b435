"""Artifacts made by hand, for tests of single stages."""

import shutil

import numpy as np

from limbeck.contracts.artifacts import Artifact, Manifest, Work, hash_files, hash_path


def make_artifact(folder, kind, *, parents=None, seconds=1.0):
    """A folder with a manifest that says of itself what tests ask about."""
    manifest = Manifest(
        name=folder.name,
        kind=kind,
        stage="make",
        key="",
        content_hash=f"hash of {folder.name}",
        parents=parents or {},
        sources={},
        recipe={},
        versions={},
        files={},
        metrics={},
        seconds=seconds,
    )
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return Artifact(folder, manifest)


def make_work(folder, name, **inputs):
    """Work in new folders below one; an input is a folder, an artifact, or several of these."""

    def find(field, item):
        kind = "corpus" if field == "corpus" else "checkpoint"
        return item if isinstance(item, Artifact) else make_artifact(item, kind)

    for part in ("artifact", "state"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    found = {
        field: tuple(
            find(field, item) for item in (value if isinstance(value, tuple) else (value,))
        )
        for field, value in inputs.items()
    }
    return Work(name, folder / "artifact", folder / "state", found)


def put_in_store(bundle, store, *, name):
    """An artifact of a store that differs from others of the same bundle in one file."""
    folder = store.root / name
    shutil.copytree(bundle, folder)
    (folder / "NOTE").write_text(name)
    files, content_hash = hash_files(folder), hash_path(folder)
    manifest = Manifest(
        name=name,
        kind="bundle",
        stage="export",
        key=name,
        content_hash=content_hash,
        parents={},
        sources={},
        recipe={},
        versions={},
        files=files,
        metrics={},
        seconds=1.0,
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return folder, content_hash


def draw_discs(path, *, train=64, val=24, side=12, seed=0):
    """An archive as MedMNIST writes it: noise, with a bright disc in half of the images."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    arrays = {}
    for split, count in (("train", train), ("val", val)):
        labels = np.arange(count) % 2
        images = rng.integers(0, 90, (count, side, side))
        for image, label in zip(images, labels, strict=True):
            row, column = rng.integers(4, side - 4, 2)
            image[((y - row) ** 2 + (x - column) ** 2 < 14) & bool(label)] += 150
        arrays[f"{split}_images"] = images.astype(np.uint8)
        arrays[f"{split}_labels"] = labels.astype(np.uint8)[:, None]
    np.savez(path, **arrays)
    return path
