"""Artifacts: what their hashes cover, and how damage and strangers are told."""

import json

import pytest

from limbeck.contracts.artifacts import (
    MANIFEST,
    Artifact,
    Manifest,
    Work,
    find_damage,
    hash_file,
    hash_files,
    hash_path,
    hash_text,
    read_artifact,
    read_manifest,
    size_bytes,
    write_atomically,
)
from limbeck.contracts.errors import ArtifactError

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def folder(tmp_path):
    """A corpus-like artifact of two files."""
    folder = tmp_path / "thing"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "inner" / "b.txt").write_text("b")
    files = hash_files(folder)
    manifest = Manifest(
        name="thing",
        kind="corpus",
        stage="prepare",
        key="k",
        parents={},
        sources={},
        content_hash=hash_text(json.dumps(files, sort_keys=True)),
        files=files,
        recipe={},
        versions={},
        metrics={"kept": 3},
        seconds=1.5,
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return folder


def test_hashes_are_sha256(tmp_path):
    empty = tmp_path / "empty"
    empty.touch()
    assert hash_file(empty) == hash_text("") == EMPTY_SHA256


def test_hash_of_a_folder_covers_names_and_bytes(folder):
    before = hash_path(folder)
    (folder / MANIFEST).write_text("another manifest")
    assert hash_path(folder) == before
    (folder / "a.txt").rename(folder / "c.txt")
    renamed = hash_path(folder)
    assert renamed != before
    (folder / "c.txt").write_text("A")
    assert hash_path(folder) not in (before, renamed)


def test_hashes_are_of_every_file_but_the_manifest(folder):
    assert hash_files(folder) == {"a.txt": hash_text("a"), "inner/b.txt": hash_text("b")}


def test_hash_of_a_missing_file(tmp_path):
    with pytest.raises(ArtifactError, match=r"absent: no such file"):
        hash_path(tmp_path / "absent")


def test_size(folder):
    assert size_bytes(folder) == 2 + (folder / MANIFEST).stat().st_size


def test_manifest_round_trip(folder):
    artifact = read_artifact(folder, kinds=("corpus",))
    assert artifact.name == "thing"
    assert Manifest.model_validate_json(artifact.manifest.model_dump_json()) == artifact.manifest


def test_damage(folder):
    artifact = read_artifact(folder)
    assert find_damage(artifact) == []
    (folder / "a.txt").write_text("changed")
    (folder / "inner" / "b.txt").unlink()
    (folder / "extra.txt").write_text("not its own")
    assert find_damage(artifact) == ["a.txt", "inner/b.txt"]


def test_wrong_kind(folder):
    with pytest.raises(ArtifactError, match="is a corpus, expected checkpoint or bundle"):
        read_artifact(folder, kinds=("checkpoint", "bundle"))


def test_missing_and_plain_folders(tmp_path):
    with pytest.raises(ArtifactError, match="no such folder"):
        read_manifest(tmp_path / "absent")
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        read_artifact(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"kind": "ship"}', "\udcff"])
def test_damaged_manifest(folder, text):
    (folder / MANIFEST).write_text(text, errors="surrogateescape")
    with pytest.raises(ArtifactError, match=r"manifest\.json: damaged manifest"):
        read_artifact(folder)


def test_a_published_checkpoint_needs_no_manifest(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    artifact = read_artifact(tmp_path, kinds=("checkpoint",))
    assert artifact.manifest.kind == "checkpoint"
    assert set(artifact.manifest.files) == {"config.json"}
    before = artifact.manifest.content_hash
    (tmp_path / "config.json").write_text("{ }")
    assert read_artifact(tmp_path).manifest.content_hash != before
    with pytest.raises(ArtifactError):
        read_artifact(tmp_path, kinds=("corpus",))


def test_atomic_write_replaces(tmp_path):
    path = tmp_path / "text"
    write_atomically(path, "one")
    write_atomically(path, "两")
    assert path.read_text(encoding="utf-8") == "两"
    assert list(tmp_path.iterdir()) == [path]


def test_work_gives_the_single_input(folder, tmp_path):
    artifact = read_artifact(folder)
    work = Work("x", tmp_path, tmp_path, {"corpus": (artifact,)})
    assert work.one("corpus") is artifact
    assert isinstance(work.one("corpus"), Artifact)
