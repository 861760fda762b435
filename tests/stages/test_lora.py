"""Adapters: the base stays, what is learnt is merged, and peft reads it alone."""

import copy

import peft
import pytest
import torch
from pydantic import ValidationError

from limbeck.contracts.errors import CheckpointError
from limbeck.models.adapters import LoraConfig, add_adapter, merge_adapter
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.stages import distill, train
from tests.support.artifacts import make_artifact, make_work
from tests.support.families import make_family

STAGES = {"train": (train, "model"), "distill": (distill, "student")}


@pytest.fixture
def go(tmp_path, corpus, dense, tokenizer):
    """Runs a stage on a checkpoint, with its own copy as the teacher."""

    def go(stage, **lora):
        module, field = STAGES[stage]
        (tmp_path / "start").mkdir()
        save_checkpoint(dense, tokenizer=tokenizer, folder=tmp_path / "start")
        start = make_artifact(tmp_path / "start", "checkpoint")
        value = {
            "stage": stage,
            "corpus": "corpus",
            field: "start",
            "objective": {"kind": "next_token"},
            "batching": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1},
            "training": {"max_steps": 4, "learning_rate": 0.05, "warmup_steps": 1},
            "lora": {"rank": 2} | lora,
        }
        if stage == "distill":
            value |= {"teacher": "start", "objective": {"kind": "soft_target"}}
        teacher = {"teacher": start} if stage == "distill" else {}
        work = make_work(tmp_path, "adapted", corpus=corpus, **{field: start}, **teacher)
        return module.run(module.Config.model_validate(value), work=work), work.folder

    return go


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of peft
@pytest.mark.parametrize("stage", STAGES)
def test_what_was_learnt_is_merged_and_kept_alone(stage, go, dense):
    metrics, folder = go(stage)
    merged = load_model(folder)
    before, after = dense.state_dict(), merged.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.endswith("_proj.weight") for name in changed)
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 2
    ids = torch.arange(3, 12).unsqueeze(0)
    alone = peft.PeftModel.from_pretrained(copy.deepcopy(dense), folder / "adapter").eval()
    torch.testing.assert_close(alone(ids).logits, merged(ids).logits, atol=1e-5, rtol=1e-4)
    trained = sum(item.numel() for name, item in alone.named_parameters() if "lora_" in name)
    assert metrics["adapter_parameters"] == trained
    assert metrics["parameters"] == sum(item.numel() for item in dense.parameters())


def test_only_named_layers_get_an_adapter(go, dense):
    _, folder = go("train", target_modules=["q_proj"])
    before, after = dense.state_dict(), load_model(folder).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning:peft")
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_head_that_is_the_embeddings_changes_without_them(stage, target, go, dense):
    assert dense.lm_head.weight is dense.model.embed_tokens.weight
    _, folder = go(stage, target_modules=[target])
    merged = load_model(folder).eval()
    before = dense.model.embed_tokens.weight
    changes = (merged.lm_head.weight - before), (merged.model.embed_tokens.weight - before)
    assert [bool(change.any()) for change in changes] == [target == "lm_head", target != "lm_head"]
    ids = torch.arange(3, 12).unsqueeze(0)
    alone = peft.PeftModel.from_pretrained(copy.deepcopy(dense), folder / "adapter").eval()
    torch.testing.assert_close(alone(ids).logits, merged(ids).logits, atol=1e-5, rtol=1e-4)


def test_layers_that_are_not_there_are_named(dense):
    with pytest.raises(CheckpointError, match=r"lora.target_modules \('querry',\).*q_proj"):
        add_adapter(copy.deepcopy(dense), config=LoraConfig(target_modules=("querry",)))


def test_fresh_weights_are_refused(dense_config):
    value = {
        "stage": "train",
        "corpus": "corpus",
        "model": dense_config.model_dump(),
        "objective": {"kind": "next_token"},
        "training": {"max_steps": 1},
        "lora": {},
    }
    with pytest.raises(ValidationError, match="`model` describes a fresh model"):
        train.Config.model_validate(value)


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")  # of peft
@pytest.mark.parametrize("family", ["OLMoE", "Mixtral"])
def test_adapters_of_stacked_experts_are_merged(family, tmp_path):
    model = load_model(make_family(tmp_path / "model", name=family))
    config = LoraConfig(rank=2)
    add_adapter(model, config=config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    ids = torch.arange(3, 12).unsqueeze(0)
    adapted = model(ids).logits
    merge_adapter(model, config=config, folder=tmp_path)
    assert not any("lora_" in name for name, _ in model.named_parameters())
    torch.testing.assert_close(model(ids).logits, adapted, atol=1e-4, rtol=1e-4)
    model.save_pretrained(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    torch.testing.assert_close(again(ids).logits, adapted, atol=1e-4, rtol=1e-4)
