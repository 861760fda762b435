"""Running a recipe of small stages: what is made, what is reused, and what a kill leaves."""

import os
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from filelock import FileLock

from limbeck.contracts.artifacts import ArtifactKind, find_damage, read_artifact
from limbeck.contracts.errors import (
    ArtifactError,
    BusyError,
    CheckpointError,
    RecipeError,
    TrainingError,
    UnknownNameError,
)
from limbeck.contracts.lineage import trace_lineage
from limbeck.contracts.recipe import load_recipe
from limbeck.contracts.registry import STAGES
from limbeck.contracts.stage import CheckpointRef, CorpusRef, StageConfig
from limbeck.pipeline.preflight import Findings
from limbeck.pipeline.run import run as run_recipe

RECIPE = """\
corpus: {stage: write, path: PATH}
small: {stage: grow, corpus: corpus, times: 1}
large: {stage: grow, corpus: corpus, start: small, times: 2}
other: {stage: grow, corpus: corpus, times: 3}
"""


class WriteConfig(StageConfig):
    make: ClassVar[ArtifactKind] = "corpus"
    path: Path
    title: str = ""

    def run(self, *, work) -> dict[str, Any]:
        (work.folder / "text.txt").write_text(self.path.read_text())
        return {"characters": len(self.path.read_text())}


class GrowConfig(StageConfig):
    make: ClassVar[ArtifactKind] = "checkpoint"
    measured: ClassVar[tuple[str, ...]] = ("seconds.txt",)
    corpus: CorpusRef
    start: CheckpointRef = ""
    times: int

    def run(self, *, work) -> dict[str, Any]:
        text = (work.one("corpus").path / "text.txt").read_text()
        if self.start:
            text += (work.one("start").path / "config.json").read_text()
        (work.folder / "config.json").write_text(text * self.times)
        (work.folder / "seconds.txt").write_text(os.urandom(8).hex())
        return {}


@pytest.fixture
def go(tmp_path, monkeypatch):
    """Runs the recipe; gives back the verb of what happened to each entry."""
    # These stages write texts in place of models.
    monkeypatch.setattr("limbeck.pipeline.check.inspect_models", lambda *_: Findings())
    for name, config in (("write", WriteConfig), ("grow", GrowConfig)):
        monkeypatch.setitem(STAGES, name, f"{__name__}:{config.__name__}")
    (tmp_path / "source.txt").write_text("ab")

    def go(*overrides, text=RECIPE, **options):
        path = tmp_path / "chain.yaml"
        path.write_text(text.replace("PATH", str(tmp_path / "source.txt")))
        happened = {}

        def report(name, told):
            happened[name] = told.split()[0].rstrip(",")

        recipe = load_recipe(path, overrides=overrides)
        made = run_recipe(recipe, runs=tmp_path / "runs", report=report, **options)
        assert list(made) == [name for name, verb in happened.items() if verb != "taken"]
        return happened

    return go


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs" / "chain"


ALL_DONE = dict.fromkeys(("corpus", "small", "large", "other"), "done")
ALL_REUSED = dict.fromkeys(("corpus", "small", "large", "other"), "reused")


def test_made_then_reused(go, root):
    assert go() == ALL_DONE
    artifact = read_artifact(root / "large")
    assert artifact.manifest.kind == "checkpoint"
    assert artifact.manifest.stage == "grow"
    assert set(artifact.manifest.files) == {"config.json", "seconds.txt"}
    assert artifact.manifest.recipe["times"] == 2
    assert {"limbeck", "python", "torch"} <= set(artifact.manifest.versions)
    assert [item.name for item in artifact.manifest.parents["start"]] == ["small"]
    corpus = read_artifact(root / "corpus").manifest
    assert corpus.metrics == {"characters": 2}
    assert list(corpus.sources) == [str(root.parent.parent / "source.txt")]
    assert go() == ALL_REUSED
    assert sorted(path.name for path in root.iterdir()) == sorted([*ALL_DONE, ".lock"])
    assert not list((root.parent / "store" / ".work").iterdir())


def test_a_stages_threads_are_not_those_of_the_next(go, monkeypatch):
    before, seen = torch.get_num_threads(), []
    run = GrowConfig.run

    def run_with_threads(self, *, work):
        seen.append(torch.get_num_threads())
        torch.set_num_threads(before + 2)
        return run(self, work=work)

    monkeypatch.setattr(GrowConfig, "run", run_with_threads)
    assert go() == ALL_DONE
    assert seen == [before] * 3 and torch.get_num_threads() == before


def test_an_override_changes_only_what_depends_on_it(go):
    go()
    assert go("small.times=5") == ALL_REUSED | {"small": "done", "large": "done"}
    assert go("large.times=5") == ALL_REUSED | {"large": "done"}


def test_a_change_that_changes_no_content_stops_there(go):
    go()
    assert go("corpus.title=new") == ALL_REUSED | {"corpus": "done"}


def test_a_changed_source_is_noticed(go, root):
    go()
    (root.parent.parent / "source.txt").write_text("abc")
    assert go() == ALL_DONE


def test_from_an_entry_on_the_rest_is_taken_as_it_stands(go, root):
    go()
    before = read_artifact(root / "small").manifest.content_hash
    (root.parent.parent / "source.txt").write_text("abc")
    changed = ("small.times=5", "large.times=7")
    taken = {"corpus": "taken", "small": "taken"}
    assert go(*changed, start="large") == taken | {"large": "done"}
    large = read_artifact(root / "large").manifest
    assert [item.content_hash for item in large.parents["start"]] == [before]
    assert go(*changed, start="large") == taken | {"large": "reused"}
    assert go("small.times=6", start="small", until="large") == {
        "corpus": "taken",
        "small": "done",
        "large": "done",
    }
    (root / "small").unlink()
    with pytest.raises(
        ArtifactError, match=r"large: needs 'small', which has not been made.*--from"
    ):
        go(start="large")
    with pytest.raises(UnknownNameError, match="did you mean 'large'"):
        go(start="larg")
    with pytest.raises(RecipeError, match="'corpus' is not made from 'large'"):
        go(start="large", until="corpus")


def test_names_do_not_matter(go):
    go()
    renamed = RECIPE.replace("small", "little")
    assert go(text=renamed) == dict.fromkeys(("corpus", "little", "large", "other"), "reused")


@pytest.mark.parametrize("name", ["config.json", "seconds.txt"])
@pytest.mark.parametrize("damage", ["change", "remove", "truncate"])
def test_damage_is_noticed_and_mended(go, root, name, damage):
    go()
    before = read_artifact(root / "small").manifest.content_hash
    path = root / "small" / name
    if damage == "remove":
        path.unlink()
    else:
        path.write_text("changed" if damage == "change" else "")
    assert go() == ALL_REUSED | {"small": "done"}
    assert read_artifact(root / "small").manifest.content_hash == before


@pytest.mark.parametrize("text", ["", "{}", '{"name": 3}'])
def test_a_damaged_manifest_is_mended(go, root, text):
    go()
    (root / "small" / "manifest.json").write_text(text)
    assert go() == ALL_REUSED | {"small": "done"}
    (root / "small" / "manifest.json").unlink()
    assert go() == ALL_REUSED | {"small": "done"}


def test_measurements_are_not_content(go, root):
    go()
    before = read_artifact(root / "small").manifest
    (root / "small" / "seconds.txt").unlink()
    go()
    after = read_artifact(root / "small").manifest
    assert before.content_hash == after.content_hash
    assert before.files["seconds.txt"] != after.files["seconds.txt"]


def test_what_is_changed_back_is_reused(go, root):
    go()
    first = (root / "small").resolve()
    go("small.times=5")
    assert (root / "small").resolve() != first
    assert go() == ALL_REUSED
    assert (root / "small").resolve() == first


def test_a_name_is_a_relative_link_into_the_store(go, root):
    go()
    target = (root / "small").readlink()
    assert target.parts[:2] == ("..", "store")
    assert read_artifact(root / "small").manifest.key.startswith(target.name.removeprefix("grow-"))
    moved = root.parent.with_name("elsewhere")
    root.parent.rename(moved)
    assert read_artifact(moved / "chain" / "small").manifest.name == "small"


def test_a_failing_stage_leaves_no_artifact(go, root, monkeypatch):
    def fail(config, *, work):
        (work.state / "step").write_text("1")
        raise TrainingError("step 1: loss nan")

    with monkeypatch.context() as patch:
        patch.setattr(GrowConfig, "run", fail)
        with pytest.raises(TrainingError):
            go()
    assert not (root / "small").exists()
    (state,) = (root.parent / "store" / ".work").glob("*/state/step")
    assert state.is_file()
    assert go() == ALL_DONE | {"corpus": "reused"}


def test_state_belongs_to_the_settings(go, root, monkeypatch):
    seen = []

    def look(config, *, work):
        seen.append((work.state / "step").is_file())
        (work.state / "step").write_text("1")
        raise TrainingError("step 1: loss nan")

    monkeypatch.setattr(GrowConfig, "run", look)
    for override in ("small.times=1", "small.times=1", "small.times=2", "small.times=1"):
        with pytest.raises(TrainingError):
            go(override)
    assert seen == [False, True, False, True]


@pytest.mark.parametrize("state", ["damaged", "changed"])
@pytest.mark.parametrize("number", range(1, 8))
def test_a_kill_while_an_artifact_is_put_in_place(go, root, monkeypatch, number, state):
    """Stopped before each renaming and removal in turn, the run still ends well and clean."""
    go()
    before = read_artifact(root / "small").manifest.content_hash
    store, calls = root.parent / "store", []

    class Killed(BaseException):
        pass

    def stop_at(function):
        def counted(*args, **kwargs):
            calls.append(function)
            if len(calls) == number:
                raise Killed
            return function(*args, **kwargs)

        return counted

    if state == "damaged":
        (root / "small" / "config.json").write_text("damaged")
    change = ("small.times=7",) if state == "changed" else ()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop_at(Path.rename))
        patch.setattr(Path, "replace", stop_at(Path.replace))
        patch.setattr(shutil, "rmtree", stop_at(shutil.rmtree))
        with pytest.raises(Killed):
            go(*change)
    for folder in store.glob("[!.]*"):
        damage = find_damage(read_artifact(folder))
        assert damage == (["config.json"] if state == "damaged" and damage else [])
    go(*change)
    assert go(*change) == ALL_REUSED
    assert go() == ALL_REUSED
    assert read_artifact(root / "small").manifest.content_hash == before
    assert not list((store / ".work").iterdir())


def test_two_at_once(go, root):
    root.mkdir(parents=True)
    with FileLock(root / ".lock"), pytest.raises(BusyError, match="wait for it, or use --runs"):
        go()
    assert go() == ALL_DONE


def test_an_artifact_from_elsewhere(go, root, tmp_path):
    go()
    kept = tmp_path / "kept"
    (root / "small").resolve().rename(kept)
    text = RECIPE.replace("small: {stage: grow, corpus: corpus, times: 1}\n", "")
    text = text.replace("start: small", f"start: {kept}")
    assert go(text=text) == {"corpus": "reused", "large": "reused", "other": "reused"}
    (kept / "config.json").write_text("other weights")
    (kept / "manifest.json").unlink()
    assert go(text=text)["large"] == "done"


def test_a_model_that_the_hub_does_not_give(go):
    text = RECIPE.replace("start: small", "start: nobody/no-such-model")
    with pytest.raises(CheckpointError, match="'nobody/no-such-model' is no entry and no folder"):
        go(text=text)


def test_lineage(go, root):
    go()
    artifact = read_artifact(root / "large")
    (ancestry,) = trace_lineage([artifact])
    found = [(depth, item.field, item.name) for depth, item in ancestry.walk()]
    assert found == [
        (0, "", "large"),
        (1, "corpus", "corpus"),
        (1, "start", "small"),
        (2, "corpus", "corpus"),
    ]
    shutil.rmtree((root / "small").resolve())
    (ancestry,) = trace_lineage([artifact])
    found = [(item.name, item.artifact is not None) for _, item in ancestry.walk()]
    assert found == [("large", True), ("corpus", True), ("small", False)]
    with pytest.raises(ArtifactError):
        read_artifact(root / "small")
