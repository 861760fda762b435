"""The stage: what a student may start from, and what it says of it."""

import json

import pytest
import torch
from pydantic import ValidationError

from limbeck.contracts.errors import CheckpointError
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.tokenizers import load_tokenizer
from limbeck.stages import distill
from tests.support.artifacts import make_work


@pytest.fixture
def work(tmp_path, corpus, moe, tokenizer):
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    save_checkpoint(moe, tokenizer=tokenizer, folder=teacher)
    return make_work(tmp_path, "student", teacher=teacher, initialize_from=teacher, corpus=corpus)


def config(dense_config, **changes):
    return distill.Config.model_validate(
        {
            "stage": "distill",
            "student": dense_config.model_dump(),
            "teacher": "teacher",
            "initialize_from": "teacher",
            "corpus": "corpus",
            "objective": {"kind": "soft_target"},
            "batching": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
            "training": {"max_steps": 1, "learning_rate": 1e-12, "weight_decay": 0.0},
        }
        | changes
    )


def test_a_student_starts_from_its_teacher(work, moe, dense_config):
    metrics = distill.run(config(dense_config), work=work)
    model = load_model(work.folder)
    torch.testing.assert_close(
        model.model.layers[0].self_attn.q_proj.weight, moe.model.layers[0].self_attn.q_proj.weight
    )
    assert 0.1 < metrics["inherited_ratio"] < 0.9


def test_a_fresh_student_inherits_nothing(work, dense_config):
    metrics = distill.run(config(dense_config, initialize_from=""), work=work)
    assert metrics["inherited_ratio"] == 0


def test_a_checkpoint_cannot_inherit(dense_config):
    with pytest.raises(ValidationError, match="remove one of the two"):
        config(dense_config, student="healed")


def test_another_tokenizers_embeddings_are_refused(work, moe, dense_config, tmp_path):
    folder = tmp_path / "other"
    train_tokenizer(["完全不同的字"] * 3, folder=folder, config=TokenizerConfig(min_count=1))
    path = work.inputs["initialize_from"][0].path
    save_checkpoint(moe, tokenizer=load_tokenizer(folder), folder=path)
    with pytest.raises(CheckpointError, match="tokenizer is not the corpus's"):
        distill.run(config(dense_config), work=work)


def test_detectors_warn_and_change_nothing(work, dense_config):
    found = distill.run(config(dense_config, initialize_from=""), work=work)
    told = load_model(work.folder).state_dict()
    assert any("likeliest token is the label" in sentence for sentence in found["warnings"])
    silent = distill.run(config(dense_config, initialize_from="", diagnostics="off"), work=work)
    assert silent["warnings"] == []
    for name, value in load_model(work.folder).state_dict().items():
        assert torch.equal(value, told[name])


def test_experts_are_inherited_and_reported(work, moe, dense_config):
    plain = distill.run(config(dense_config), work=work)
    metrics = distill.run(config(dense_config, initialize_experts="most_used"), work=work)
    assert metrics["inherited_ratio"] > plain["inherited_ratio"]
    assert [len(layer) for layer in metrics["experts"]] == [4, 4]
    mlp = load_model(work.folder).model.layers[1].mlp
    gates = moe.model.layers[1].mlp.experts.gate_up_proj[metrics["experts"][1], :8]
    found = mlp.gate_proj.weight.unflatten(0, (4, 8))
    for gate in gates:
        assert any(torch.allclose(gate, other, atol=1e-6) for other in found)


@pytest.mark.parametrize(
    "item",
    [
        {"layers": "searched"},
        {"layers": "uniform", "measure": "cka"},
        {"what": "attention", "measure": "kl", "layers": "last"},
        {"what": "values", "measure": "kl", "layers": "uniform", "relation_heads": 2},
    ],
    ids=str,
)
def test_layers_are_matched_by_name(work, dense_config, item):
    objective = {"kind": "soft_target", "matching": [item]}
    metrics = distill.run(config(dense_config, objective=objective), work=work)
    wanted = [(2, 2)] if item["layers"] == "last" else [(1, 1), (2, 2)]
    assert metrics["matched_layers"] == wanted
    history = json.loads((work.folder / "history.json").read_text())
    assert history[0]["matching"] > 0
    assert not any("projections" in name for name in load_model(work.folder).state_dict())


def test_unselected_experts_are_asked_and_what_is_missed_is_reported(work, dense_config):
    drawn = distill.run(config(dense_config, router_sampling={"num_samples": 2}), work=work)
    told = json.loads((work.folder / "router.json").read_text())
    assert told["kl"] == drawn["missed"]["kl"] > 0
    assert [len(layer) for layer in told["layers"]] == [8, 8]
    plain = distill.run(config(dense_config), work=work)
    assert plain["kl"] != drawn["kl"] and plain["missed"]["kl"] == pytest.approx(told["kl"])
