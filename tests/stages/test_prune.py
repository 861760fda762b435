"""The stage: shapes shrink by the share asked, the cut loses nothing, a kill changes nothing."""

import json

import pytest
import torch
from pydantic import ValidationError
from transformers import (
    AutoModelForCausalLM,
    Glm4Config,
    Glm4ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from limbeck.contracts.artifacts import hash_files
from limbeck.contracts.errors import CheckpointError
from limbeck.data.loading.batches import Batches
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.stages import prune
from limbeck.training import loop
from tests.support import artifacts


@pytest.fixture
def make_work(tmp_path, corpus, dense_config, tokenizer):
    def make(name, **changes):
        start = tmp_path / "student"
        if not start.is_dir():
            config = dense_config.replace(num_attention_heads=4, num_key_value_heads=2, **changes)
            model = config.build(tokenizer=tokenizer, seed=1)
            save_checkpoint(model, tokenizer=tokenizer, folder=start)
        return artifacts.make_work(
            tmp_path / name, name, checkpoint=start, corpus=corpus, teacher=start
        )

    return make


def config(**changes):
    return prune.Config.model_validate(
        {
            "stage": "prune",
            "checkpoint": "student",
            "corpus": "corpus",
            "batching": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1},
            "training": {"max_steps": 6, "warmup_steps": 1, "save_interval_seconds": 0},
        }
        | changes
    )


def test_shapes_shrink_and_the_metrics_show_how(make_work):
    work = make_work("pruned")
    metrics = prune.run(config(heads_ratio=0.5), work=work)
    model = load_model(work.folder)
    assert model.config.intermediate_size == 24  # 32 x 0.8 at multiples of 8
    assert model.config.num_key_value_heads == 1
    assert model.config.num_attention_heads == 2
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert metrics["channels_cut_ratio"] == metrics["channels_zero_ratio"] == 0.25
    assert metrics["heads_cut_ratio"] == metrics["heads_zero_ratio"] == 0.5
    assert metrics["norm_removed_ratio"] == 0
    assert metrics["parity_error"] <= 1e-5
    assert metrics["kl_to_uncut"] < 1e-6
    assert "reconstructed_layers" not in metrics
    assert metrics["parameters"] == sum(item.numel() for item in model.parameters())
    gone = 2 * 8 * 3 * 16 + 2 * (2 * 8 * 2 + 8 * 2) * 16
    assert metrics["parameters_before"] - metrics["parameters"] == gone
    history = json.loads((work.folder / "history.json").read_text())
    assert history[-1]["step"] == 5
    plain = AutoModelForCausalLM.from_pretrained(work.folder)
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(plain(ids).logits, model(ids).logits)


def cut_at_once(**changes):
    return config(**{"training": None, "channels_ratio": 0.5, "heads_ratio": 0.5} | changes)


def test_what_is_left_is_fitted_to_the_uncut_model(make_work):
    left, fitted = make_work("left"), make_work("fitted")
    plain = prune.run(cut_at_once(reconstruction=None), work=left)
    metrics = prune.run(cut_at_once(), work=fitted)
    assert metrics["reconstructed_layers"] == 14
    assert metrics["kl_to_uncut_as_cut"] == plain["kl_to_uncut"]
    assert metrics["kl_to_uncut"] < 0.8 * plain["kl_to_uncut"]
    ours, theirs = (load_model(work.folder).state_dict() for work in (fitted, left))
    changed = {name for name, item in ours.items() if not torch.equal(item, theirs[name])}
    assert all(name.endswith("proj.weight") for name in changed)
    for index in range(2):
        assert f"model.layers.{index}.self_attn.o_proj.weight" in changed
        assert f"model.layers.{index}.mlp.down_proj.weight" in changed


def test_a_fit_to_too_few_records_is_left_out(make_work, caplog):
    """They hold hardly more tokens than a layer has columns, so that noise is fitted."""
    left, fitted = make_work("left"), make_work("fitted")
    prune.run(cut_at_once(reconstruction=None), work=left)
    few = {"num_records": 2, "damping_ratio": 1e-9}
    metrics = prune.run(cut_at_once(reconstruction=few), work=fitted)
    assert metrics["reconstructed_layers"] == 0
    assert metrics["kl_to_uncut"] == metrics["kl_to_uncut_as_cut"]
    assert "it stays as it was cut" in caplog.text
    assert hash_files(fitted.folder) == hash_files(left.folder)


def test_without_validation_records_a_fit_is_judged_by_others_than_it_saw(make_work, monkeypatch):
    monkeypatch.setattr(Batches, "open_validation", lambda self: None)
    seen = {}

    def record(name, function):
        def call(*models, batches, **settings):
            seen[name] = {place for batch in batches for place in batch.record_ids.tolist()}
            return function(*models, batches=batches, **settings)

        monkeypatch.setattr(prune, name, call)

    record("reconstruct", prune.reconstruct)
    record("measure_kl", prune.measure_kl)
    metrics = prune.run(cut_at_once(reconstruction={"num_records": 20}), work=make_work("cut"))
    assert metrics["reconstructed_layers"] == 14
    assert seen["reconstruct"] and seen["measure_kl"]
    assert not seen["reconstruct"] & seen["measure_kl"]


def test_a_teacher_keeps_the_answers_up(make_work):
    work = make_work("taught")
    objective = {"kind": "soft_target"}
    metrics = prune.run(config(objective=objective, teacher="student"), work=work)
    assert metrics["channels_kept"] == 24


SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "pad_token_id": 0,
}
FUSED = {
    "Phi-3": lambda vocab: Phi3ForCausalLM(Phi3Config(**SIZES, vocab_size=vocab)),
    "GLM-4": lambda vocab: Glm4ForCausalLM(
        Glm4Config(**SIZES, vocab_size=vocab, attention_bias=True)
    ),
}


@pytest.mark.parametrize("family", FUSED)
def test_fused_projections_are_cut_with_their_uncut_model_as_teacher(family, make_work, tokenizer):
    work = make_work("fused")
    whole = FUSED[family](len(tokenizer))
    save_checkpoint(whole, tokenizer=tokenizer, folder=work.inputs["checkpoint"][0].path)
    shares = {"channels_ratio": 0.25, "heads_ratio": 0.5, "hidden_ratio": 0.25, "multiple": 4}
    taught = {"objective": {"kind": "soft_target"}, "teacher": "student"}
    metrics = prune.run(config(**shares, **taught), work=work)
    assert metrics["channels_zero_ratio"] == 0.25
    assert metrics["heads_zero_ratio"] == 0.5
    assert metrics["norm_removed_ratio"] == 0
    model = AutoModelForCausalLM.from_pretrained(work.folder)
    assert type(model) is type(whole)
    assert model.config.intermediate_size == 24
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (2, 1)
    assert (model.config.hidden_size, model.config.head_dim) == (12, 4)
    assert model.model.layers[0].mlp.gate_up_proj.weight.shape == (48, 12)


def test_a_killed_run_goes_on_bit_for_bit(make_work, monkeypatch):
    whole = make_work("whole")
    prune.run(config(), work=whole)
    killed = make_work("killed")
    save, saved = loop.save_state, []

    def save_and_die(*arguments, **named):
        save(*arguments, **named)
        saved.append(named["saved"].step)
        if named["saved"].step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_state", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        prune.run(config(), work=killed)
    monkeypatch.setattr(loop, "save_state", save)
    prune.run(config(), work=killed)
    assert saved == [1, 2, 3]
    assert hash_files(killed.folder) == hash_files(whole.folder)


def test_a_mixture_without_dense_channels_is_refused(make_work, moe, tokenizer):
    work = make_work("refused")
    save_checkpoint(moe, tokenizer=tokenizer, folder=work.inputs["checkpoint"][0].path)
    with pytest.raises(CheckpointError, match="built like Llama and Qwen3"):
        prune.run(config(), work=work)


def test_a_cut_that_rounds_to_nothing_is_refused_before_training(make_work):
    work = make_work("refused")
    with pytest.raises(CheckpointError, match="lower the multiple"):
        prune.run(config(multiple=64), work=work)
    assert not any(work.state.iterdir())


def test_sizes_that_transformers_would_not_load_are_refused_before_training(make_work, tokenizer):
    work = make_work("refused")
    shape = {**SIZES, "num_key_value_heads": 4, "vocab_size": len(tokenizer)}
    model = LlamaForCausalLM(LlamaConfig(**shape))
    save_checkpoint(model, tokenizer=tokenizer, folder=work.inputs["checkpoint"][0].path)
    with pytest.raises(CheckpointError, match=r"\(16\) is not a multiple .* heads \(3\)"):
        prune.run(config(heads_ratio=0.25), work=work)
    assert not any(work.state.iterdir())
    # A width that three heads divide is loaded.
    metrics = prune.run(
        config(heads_ratio=0.25, hidden_ratio=0.25, multiple=4), work=make_work("narrower")
    )
    assert metrics["hidden_kept"] == 12
    assert load_model(make_work("narrower").folder).config.num_attention_heads == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels_ratio": 1.0}, "less than 1"),
        ({"heads_ratio": -0.1}, "greater than or equal to 0"),
        ({"channels_ratio": 0}, "nothing would be cut"),
        ({"criterion": "l2"}, "unknown criterion 'l2'"),
        ({"objective": {"kind": "soft_target"}}, "needs a `teacher`"),
        ({"teacher": "student"}, "uses no teacher"),
        ({"lambda": 0.1}, "unknown key"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)
