"""Our mixture and transformers' Qwen3-MoE: there and back with equal logits, or a named refusal."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3MoeForCausalLM

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import save_checkpoint
from limbeck.models.moe.convert_qwen3 import from_qwen3_moe, to_qwen3_moe
from limbeck.models.moe.modeling import LimbeckMoeForCausalLM


def logits(model):
    ids = torch.randint(4, 60, (3, 11), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("changes", [{}, {"norm_topk_prob": False, "num_experts_per_tok": 3}])
def test_there_through_a_stock_folder_and_back(changes, moe_config, tokenizer, tmp_path):
    ours = moe_config.replace(**changes).build(tokenizer=tokenizer, seed=0).eval()
    save_checkpoint(to_qwen3_moe(ours), tokenizer=tokenizer, folder=tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(theirs) is Qwen3MoeForCausalLM
    torch.testing.assert_close(logits(theirs), logits(ours), atol=1e-5, rtol=1e-5)
    back = from_qwen3_moe(theirs)
    assert isinstance(back, LimbeckMoeForCausalLM)
    torch.testing.assert_close(logits(back), logits(ours), atol=1e-5, rtol=1e-5)
    for name, item in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], item), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion": "attention"}, "fusion"),
        ({"n_shared_experts": 1}, "n_shared_experts"),
        ({"scoring_func": "sigmoid"}, "scoring_func"),
        ({"routed_scaling_factor": 2.0}, "routed_scaling_factor"),
        ({"n_group": 2, "topk_group": 1}, "n_group"),
    ],
)
def test_what_has_no_place_is_refused(changes, message, moe_config, tokenizer):
    ours = moe_config.replace(**changes).build(tokenizer=tokenizer, seed=0)
    with pytest.raises(CheckpointError, match=message):
        to_qwen3_moe(ours)


def test_balance_biases_are_refused_not_dropped(moe):
    moe.model.layers[1].mlp.gate.balance_bias[0] = 0.01
    with pytest.raises(CheckpointError, match="bias_rate=0"):
        to_qwen3_moe(moe)


def test_partly_dense_mixtures_are_refused(moe):
    theirs = to_qwen3_moe(moe)
    theirs.config.mlp_only_layers = [0]
    with pytest.raises(CheckpointError, match=r"\[0\]"):
        from_qwen3_moe(theirs)
