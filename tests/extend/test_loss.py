"""The loss of the page trains through the stage: one module, one line."""

import json

import pytest

from limbeck.contracts.artifacts import Work
from limbeck.contracts.registry import OBJECTIVES
from limbeck.stages import train
from tests.support.artifacts import make_artifact


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "smoothed", "docs.extend.examples.loss:SmoothedNextToken")


@pytest.mark.parametrize("packing", ["none", "full"])
def test_it_trains_through_the_stage(packing, tmp_path, corpus, dense_config):
    folder, state = tmp_path / "artifact", tmp_path / "state"
    for path in (folder, state):
        path.mkdir()
    config = train.Config.model_validate(
        {
            "stage": "train",
            "corpus": "corpus",
            "model": dense_config.model_dump(),
            "objective": {"kind": "smoothed", "smoothing": 0.2},
            "batching": {
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 2,
                "packing": packing,
            },
            "training": {"max_steps": 12, "learning_rate": 0.01, "logging_steps": 1},
        }
    )
    inputs = {"corpus": (make_artifact(corpus, "corpus"),)}
    train.run(config, work=Work("model", folder, state, inputs))
    history = json.loads((folder / "history.json").read_text())
    assert history[-1]["smoothed"] < history[0]["smoothed"]
