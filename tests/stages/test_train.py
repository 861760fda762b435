"""The stage: a mixture's checkpoint says how its experts were used."""

import json

import pytest
from making import make_artifact

from limbeck.contracts.artifacts import Work
from limbeck.models.sizing import size_model
from limbeck.stages import train


def run(model_config, *, tmp_path, corpus):
    (tmp_path / "artifact").mkdir()
    (tmp_path / "state").mkdir()
    config = train.Config.model_validate(
        {
            "stage": "train", "corpus": "corpus", "model": model_config.model_dump(),
            "objective": {"kind": "next_token"},
            "batching": {"batch_records": 4, "accumulation_steps": 2},
            "training": {"steps": 2, "lr": 0.001},
        }
    )  # fmt: skip
    inputs = {"corpus": (make_artifact(corpus, "corpus"),)}
    work = Work("teacher", tmp_path / "artifact", tmp_path / "state", inputs)
    return work, train.run(config, work=work)


@pytest.mark.parametrize("changes", [{}, {"experts_per_token": 3, "num_shared_experts": 1}])
def test_the_router_report_counts_every_pick(changes, moe_config, corpus, tokenizer, tmp_path):
    config = moe_config.replace(**changes)
    work, _ = run(config, tmp_path=tmp_path, corpus=corpus)
    found = json.loads((work.folder / "routing.json").read_text())
    picks = [sum(layer) for layer in found["layers"]]
    assert len(set(picks)) == 1
    assert picks[0] % config.experts_per_token == 0
    for layer, row in enumerate(found["layers"]):
        parts = [value[layer] for value in found["by_specialty"].values()]
        assert [sum(column) for column in zip(*parts, strict=True)] == row
    assert all(0 < ratio <= 1 for ratio in found["entropy_ratios"])
    size = size_model(config.build(tokenizer=tokenizer, seed=0).config, context_tokens=1)
    assert found["skipped_ratio"] == pytest.approx(size.skipped_ratio)


def test_a_dense_model_reports_no_routing(dense_config, corpus, tmp_path):
    work, _ = run(dense_config, tmp_path=tmp_path, corpus=corpus)
    assert not (work.folder / "routing.json").exists()
