"""The stage of the page runs in a recipe: one module, one line."""

from pathlib import Path

import pytest
import torch

from limbeck.contracts.recipe import load_recipe
from limbeck.contracts.registry import STAGES
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.pipeline.run import run


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    monkeypatch.setitem(STAGES, "average", "docs.extend.examples.stage:Average")


def test_it_runs_in_a_recipe(tmp_path, dense_config, tokenizer):
    for seed in (0, 1):
        model = dense_config.build(tokenizer=tokenizer, seed=seed)
        save_checkpoint(model, tokenizer=tokenizer, folder=tmp_path / f"model{seed}")
    named = [str(tmp_path / f"model{seed}") for seed in (0, 1)]
    (tmp_path / "soup.yaml").write_text(f"soup: {{stage: average, checkpoints: {named}}}\n")
    made = run(load_recipe(tmp_path / "soup.yaml"), runs=tmp_path / "runs")
    left, right = (load_model(Path(folder)).state_dict() for folder in named)
    for name, found in load_model(made["soup"].path).state_dict().items():
        torch.testing.assert_close(found, (left[name] + right[name]) / 2)
