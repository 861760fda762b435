"""The store and the model registry: what is kept, what goes, and what a kill or a rival leaves."""

import json
import multiprocessing
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from limbeck.contracts.artifacts import (
    CACHE,
    MADE_FROM,
    Manifest,
    Parent,
    hash_files,
    hash_text,
    read_artifact,
)
from limbeck.contracts.errors import ArtifactError, UnknownNameError
from limbeck.contracts.pointers import HEADER, follow, is_pointer, point
from limbeck.pipeline.file_hashes import FileHashes
from limbeck.pipeline.garbage import collect, list_store
from limbeck.pipeline.model_registry import ModelRegistry, answering, champions, roles
from limbeck.pipeline.store import Store
from tests.support.waiting import wait_for


def put(store, text, *, name="", parents=(), kind="checkpoint", key=""):
    """An artifact of one file, with a name `recipe/entry` where one is given."""
    key = key or hash_text(text)
    work = store.begin(key, name=name, inputs=parents)
    (work / "artifact" / "a.txt").write_text(text)
    files = hash_files(work / "artifact")
    made = Manifest(
        name=text,
        kind=kind,
        stage="train",
        key=key,
        content_hash=hash_text(json.dumps(files)),
        parents={
            "from": tuple(
                Parent(
                    name=item.name,
                    path=str(item.path),
                    kind=item.manifest.kind,
                    content_hash=item.manifest.content_hash,
                )
                for item in parents
            )
        },
        sources={},
        recipe={},
        versions={},
        files=files,
        metrics={},
        seconds=0.0,
    )
    (work / "artifact" / "manifest.json").write_text(made.model_dump_json())
    found = store.put(work / "artifact", manifest=made)
    (work / "state").rmdir()
    (work / "making.json").unlink()
    work.rmdir()
    if name:
        (store.runs / name).parent.mkdir(parents=True, exist_ok=True)
        store.point(store.runs / name, at=found.path)
    return found


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def test_what_a_killed_run_left_is_no_part_of_an_artifact(store):
    """Such as the file that safetensors was writing, under a passing name, when the kill came."""
    work = store.begin(hash_text("a"), name="", inputs=())
    for part in ("artifact", "state"):
        (work / part / ".tmpQfAorg").write_text("half")
    assert list((store.begin(hash_text("a"), name="", inputs=()) / "artifact").iterdir()) == []
    assert (work / "state" / ".tmpQfAorg").read_text() == "half"
    (work / "state" / ".tmpQfAorg").unlink()
    assert list(put(store, "a").manifest.files) == ["a.txt"]


def removed(store, **options):
    return [item.folder for item in collect(store, keep_days=0.0, **options).removed]


def test_keys_that_begin_alike(store):
    first, second = "ab" * 32, "ab" * 31 + "cd"
    folders = [put(store, str(index), key=key).path for index, key in enumerate((first, second))]
    assert [path.name for path in folders] == ["train-" + "ab" * 6, "train-" + "ab" * 10]
    assert [store.folder(key, stage="train") for key in (first, second)] == folders


def test_a_pointer_file_where_links_cannot_be_made(store, monkeypatch):
    def refuse(self, target, target_is_directory=False):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    made = put(store, "a", name="demo/a")
    name = store.runs / "demo" / "a"
    assert name.read_text() == f"{HEADER}../store/{made.path.name}"
    assert is_pointer(name)
    assert follow(name) == made.path.resolve()
    assert read_artifact(name).manifest.name == "a"
    assert store.names() == {made.path.name: ["demo/a"]}
    assert removed(store) == []


def test_gc_keeps_what_names_reach(store):
    corpus = put(store, "corpus", kind="corpus")
    old = put(store, "old", name="demo/student", parents=(corpus,))
    new = put(store, "new", name="demo/student")
    other = put(store, "other", name="group/inner/student", parents=(new,))
    assert {item.folder: item.is_referenced for item in list_store(store, keep_days=0.0)} == {
        corpus.path.name: False,
        old.path.name: False,
        new.path.name: True,
        other.path.name: True,
    }
    assert collect(store, keep_days=1.0).kept_young == 2
    assert sorted(removed(store, dry_run=True)) == sorted((corpus.path.name, old.path.name))
    assert old.path.is_dir()
    assert collect(store, keep_days=0.0).freed_bytes > 0
    assert not old.path.exists()
    assert not corpus.path.exists()
    assert new.path.is_dir()


def test_gc_leaves_what_a_process_holds_or_reads(store):
    corpus, student = put(store, "corpus", kind="corpus"), put(store, "student")
    store.begin("f" * 64, name="demo/x", inputs=(corpus,))
    with store.hold("f" * 64), Store(store.runs).hold(student.manifest.key):
        assert removed(store) == []
        assert store.work_dir("f" * 64).is_dir()
    assert sorted(removed(store)) == sorted([corpus.path.name, student.path.name])
    assert not store.work_dir("f" * 64).exists()


def test_an_input_that_gc_took_is_an_error(store):
    corpus = put(store, "corpus", kind="corpus")
    assert removed(store) == [corpus.path.name]
    with pytest.raises(ArtifactError, match="removed just now"):
        store.begin("f" * 64, name="demo/x", inputs=(corpus,))


def test_files_that_look_untouched_are_not_read_again(tmp_path, monkeypatch):
    path = tmp_path / "large"
    path.write_text("ab")
    hashes = FileHashes(tmp_path / "hashes")
    assert hashes.hash_file(path) == hash_text("ab")
    hashes.save()
    assert not list((tmp_path / "hashes").iterdir())  # too young to be sure
    os.utime(path, (1, 1))
    hashes.hash_file(path)
    hashes.save()
    monkeypatch.setattr("limbeck.pipeline.file_hashes.hash_file", lambda path: "read")
    again = FileHashes(tmp_path / "hashes")
    assert again.hash_file(path) == hash_text("ab")
    path.write_text("cd")
    os.utime(path, (1, 1))
    assert again.hash_file(path) == "read"  # the time of its change tells


def test_promote_and_roll_back(store):
    registry = ModelRegistry(store)
    first, second, third = (put(store, text) for text in "abc")
    with pytest.raises(UnknownNameError, match="unknown served name 'chat'"):
        registry.history("chat")
    registry.promote("chat", first.path, by="ada")
    with pytest.raises(ArtifactError, match="no champion before"):
        registry.rollback("chat")
    registry.promote("chat", second.path, role="candidate")
    assert set(roles(registry.history("chat"))) == {"champion", "candidate"}
    registry.promote("chat", second.path)
    registry.promote("chat", third.path)
    assert registry.resolve("chat").path == third.path
    assert registry.resolve("chat", role="previous").path == second.path
    with pytest.raises(ArtifactError, match="has no candidate"):
        registry.resolve("chat", role="candidate")
    registry.rollback("chat")
    registry.rollback("chat")
    events = registry.history("chat")
    assert [item.artifact for item in champions(events)] == [first.path.name]
    assert registry.resolve("chat").path == first.path
    assert registry.resolve("chat", at=events[3].time).path == third.path
    found = answering(events, start=events[2].time, end=events[3].time)
    assert [item.artifact for item in found] == [second.path.name, third.path.name]
    assert events[0].by == "ada"


def test_what_cannot_be_promoted(store, tmp_path):
    registry = ModelRegistry(store)
    with pytest.raises(ArtifactError, match="is a corpus"):
        registry.promote("chat", put(store, "a", kind="corpus").path)
    damaged = put(store, "b").path
    (damaged / "a.txt").write_text("other")
    with pytest.raises(ArtifactError, match="damaged"):
        registry.promote("chat", damaged)
    with pytest.raises(ArtifactError, match="cannot name a model"):
        registry.promote("../chat", put(store, "c").path)
    with pytest.raises(ArtifactError, match="make it there by a recipe"):
        registry.promote("chat", put(Store(tmp_path / "others"), "d").path)


def test_gc_keeps_what_is_served(store):
    registry = ModelRegistry(store)
    made = [put(store, text) for text in "abc"]
    for item in made:
        registry.promote("chat", item.path)
    assert removed(store) == [made[0].path.name]
    assert registry.resolve("chat", role="previous").path == made[1].path
    registry.rollback("chat")
    with pytest.raises(ArtifactError, match="no such folder"):
        registry.rollback("chat")


def test_history_of_the_last_days_is_kept(store):
    registry = ModelRegistry(store)
    made = [put(store, text) for text in "abc"]
    for item in made:
        registry.promote("chat", item.path)
        os.utime(item.path, (1, 1))
    assert not collect(store, keep_days=1.0).removed
    path = store.root / ".registry" / "chat.jsonl"
    old = datetime.now(UTC) - timedelta(days=3)
    path.write_text(
        "".join(
            item.replace(time=old).model_dump_json() + "\n" for item in registry.history("chat")
        )
    )
    assert [item.folder for item in collect(store, keep_days=1.0).removed] == [made[0].path.name]


def test_a_torn_line_is_dropped(store):
    registry = ModelRegistry(store)
    made = put(store, "a")
    registry.promote("chat", made.path, by="one")
    path = store.root / ".registry" / "chat.jsonl"
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        assert [item.by for item in registry.history("chat")] == ["one"]
    registry.promote("chat", made.path, by="two")
    assert [item.by for item in registry.history("chat")] == ["one", "two"]


def promote_often(runs, artifact, by, ready):
    registry = ModelRegistry(Store(runs))
    ready.wait()
    for number in range(1000):
        registry.promote("chat", artifact, by=f"{by}-{number}")


def test_concurrent_promotions_lose_nothing_and_survive_kills(store):
    made = put(store, "a")
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    processes = [
        context.Process(target=promote_often, args=(store.runs, made.path, str(index), ready))
        for index in range(3)
    ]
    for process in processes:
        process.start()
    ready.set()
    registry = ModelRegistry(store)
    path = store.root / ".registry" / "chat.jsonl"
    try:
        wait_for(lambda: path.is_file() and len(registry.history("chat")) >= 60)
    finally:
        for process in processes:
            process.kill()
            process.join()
    registry.promote("chat", made.path, by="last")
    found = [item.by for item in registry.history("chat")]
    assert found[-1] == "last"
    for index in range(3):
        own = [by for by in found if by.startswith(f"{index}-")]
        assert own == [f"{index}-{number}" for number in range(len(own))]


def test_a_switch_is_never_halved(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    name = tmp_path / "name"
    point(name, at=first)
    point(name, at=second)
    assert name.readlink() == Path("second")
    assert not list(tmp_path.glob(".name.*"))


def put_cached(store, key, *, made_from):
    entry = store.root / CACHE / "tokens" / key
    entry.mkdir(parents=True)
    if made_from:
        (entry / MADE_FROM).write_text(json.dumps(made_from))
    return entry


def test_gc_drops_cached_data_of_artifacts_that_are_gone(store):
    kept = put(store, "kept", name="demo/kept")
    gone = put(store, "gone")
    sources = (kept.path.name, gone.path.name, "long-gone", "")
    entries = [put_cached(store, str(i), made_from=name) for i, name in enumerate(sources)]
    assert [item.folder for item in list_store(store, keep_days=0.0)] == sorted(
        (kept.path.name, gone.path.name)
    )
    collect(store, keep_days=1.0, dry_run=True)
    assert all(entry.is_dir() for entry in entries)
    collect(store, keep_days=1.0)
    assert [entry.is_dir() for entry in entries] == [True, True, False, False]
    os.utime(gone.path, (0, 0))
    would = collect(store, keep_days=1.0, dry_run=True).freed_bytes
    assert collect(store, keep_days=1.0).freed_bytes == would
    assert [entry.is_dir() for entry in entries] == [True, False, False, False]


def test_gc_drops_cached_data_that_nothing_has_read_for_long(store):
    corpus, busy = put(store, "corpus", name="demo/corpus"), put(store, "busy", name="demo/busy")
    store.begin(hash_text("training"), name="training", inputs=[busy])
    old, fresh, mapped = (
        put_cached(store, key, made_from=item.path.name)
        for key, item in (("old", corpus), ("fresh", corpus), ("mapped", busy))
    )
    for entry in (old, mapped):
        os.utime(entry, (0, 0))
    collect(store, keep_days=1.0)
    assert [entry.is_dir() for entry in (old, fresh, mapped)] == [False, True, True]
