"""The criterion of the page prunes a model through the stage: one module, one line."""

import numpy as np
import pytest
import torch

from docs.extend.examples.criterion import Wanda
from limbeck.contracts.artifacts import Work
from limbeck.contracts.registry import CRITERIA
from limbeck.models.batch import pad_rows
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.structure import find_channels, find_heads
from limbeck.pruning.calibration import calibrate
from limbeck.pruning.criteria import score_groups
from limbeck.stages import prune
from tests.support.artifacts import make_artifact


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    monkeypatch.setitem(CRITERIA, "wanda", "docs.extend.examples.criterion:Wanda")


def test_scores_are_weights_times_the_activations_that_they_meet(dense):
    rows = [np.array([3, 4, 5, 6]), np.array([7, 8])]
    padded = pad_rows(rows, starts=[0, 0], pad=0, record_ids=[0, 1])
    heard = []
    down = dense.model.layers[0].mlp.down_proj
    handle = down.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    layers = [find_channels(dense)[0], find_heads(dense)[0]]
    found = calibrate(dense, layers=layers, batches=[padded], needs="activations")
    handle.remove()
    x = torch.cat([heard[0][0], heard[0][1, :2]])
    expected = down.weight.abs().sum(dim=0) * x.square().mean(dim=0).sqrt()
    for groups in layers:
        scores = score_groups(dense, groups=groups, criterion=Wanda(), calibration=found[groups])
        assert scores.shape == (groups.num_groups,)
        if groups.kind == "channels":
            torch.testing.assert_close(scores, expected)


def test_it_prunes_through_the_stage(tmp_path, corpus, dense, tokenizer):
    save_checkpoint(dense, tokenizer=tokenizer, folder=tmp_path / "student")
    folder, state = tmp_path / "artifact", tmp_path / "state"
    for path in (folder, state):
        path.mkdir()
    inputs = {
        "checkpoint": (make_artifact(tmp_path / "student", "checkpoint"),),
        "corpus": (make_artifact(corpus, "corpus"),),
    }
    config = prune.Config.model_validate(
        {
            "stage": "prune",
            "checkpoint": "student",
            "corpus": "corpus",
            "criterion": "wanda",
            "channels_ratio": 0.5,
            "calibration_batches": 2,
            "training": {"max_steps": 2, "warmup_steps": 1},
        }
    )
    metrics = prune.run(config, work=Work("pruned", folder, state, inputs))
    assert metrics["channels_kept"] == load_model(folder).config.intermediate_size == 16
