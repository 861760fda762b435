"""The runtime of the page exports a checkpoint through the stage and answers from the bundle."""

import pytest

from limbeck.contracts.artifacts import Work
from limbeck.contracts.errors import ParityError
from limbeck.contracts.registry import RUNTIMES
from limbeck.models.checkpoints import save_checkpoint
from limbeck.runtimes import open_answerer
from limbeck.runtimes.bundle import read_bundle
from limbeck.stages import export
from tests.support.artifacts import make_artifact


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    monkeypatch.setitem(RUNTIMES, "half", "docs.extend.examples.runtime:HalfRuntime")


@pytest.fixture
def work(tmp_path, dense, tokenizer):
    save_checkpoint(dense, tokenizer=tokenizer, folder=tmp_path / "student")
    folder, state = tmp_path / "artifact", tmp_path / "state"
    for path in (folder, state):
        path.mkdir()
    inputs = {"checkpoint": (make_artifact(tmp_path / "student", "checkpoint"),)}
    return Work("bundle", folder, state, inputs)


def export_half(work, **fields):
    config = {"stage": "export", "checkpoint": "student", "runtime": "half", **fields}
    return export.run(export.Config.model_validate(config), work=work)


def test_a_bundle_answers_and_is_half_as_large(work, dense):
    export_half(work, tolerance={"measure": "mean_kl", "limit": 0.01})
    bundle = read_bundle(work.folder)
    assert (bundle.runtime, bundle.format) == ("half", "bfloat16")
    before, after = (
        (folder / "model.safetensors").stat().st_size
        for folder in (work.one("checkpoint").path, work.folder)
    )
    assert after < 0.6 * before
    answerer = open_answerer(work.folder, num_threads=1)
    assert len(answerer.answer(["高血压", "感冒怎么办"], max_new_tokens=3)) == 2


def test_the_tolerance_of_floats_refuses_the_rounding(work):
    with pytest.raises(ParityError):
        export_half(work)
