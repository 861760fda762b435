"""Overheard attention: what eager attention says, of every family; relations as plainly written."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    LlamaConfig,
    MixtralConfig,
    OlmoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from limbeck.contracts.errors import CheckpointError
from limbeck.models.attention_capture import attention_logs, enable_attention_capture, relation_logs
from limbeck.models.forward import KeptForward
from tests.support.token_batch import token_batch

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
WIDTH: dict[str, Any] = {"head_dim": 8}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2}
MLA: dict[str, Any] = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
FAMILIES = [
    Qwen3Config(**SIZES, **WIDTH),
    LlamaConfig(**SIZES),
    Qwen3MoeConfig(**SIZES, **EXPERTS, **WIDTH, moe_intermediate_size=16),
    MixtralConfig(**SIZES, num_local_experts=4, sliding_window=3),
    OlmoeConfig(**SIZES, **EXPERTS, clip_qkv=0.3),
    DeepseekV3Config(**{**SIZES, "num_key_value_heads": 4}, **MLA),
]
IDS = torch.arange(14).reshape(2, 7)
KEEP = torch.zeros(2, 7, dtype=torch.bool)
KEEP[0, 2:6] = KEEP[1, 1:3] = True


def captured(model):
    enable_attention_capture(model)
    return KeptForward(model)(token_batch(IDS), keep=KEEP, attention=(2, 1)).heads


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
def test_it_is_eager_attention_and_the_logits_stay(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        before = model(IDS).logits
        model.set_attn_implementation("eager")
        eager = model(IDS, output_attentions=True).attentions
        heads = captured(model)
        assert torch.equal(model(IDS).logits, before)
    for place, layer in enumerate((1, 0)):
        found = attention_logs(heads[place], keep=KEEP).exp()
        torch.testing.assert_close(found, eager[layer].transpose(1, 2)[KEEP], rtol=1e-5, atol=1e-6)


def test_teachers_of_the_projects_own_are_heard_too(moe):
    heads = captured(moe)
    moe.set_attn_implementation("sdpa")
    assert KeptForward(moe)(token_batch(IDS), keep=KEEP).heads == ()
    assert heads[0].queries.shape == (2, 2, 7, 8) and heads[0].values.shape == (2, 1, 7, 8)


@pytest.mark.parametrize("relation_heads", [1, 2, 4])
def test_relations_are_a_plain_loop_over_tokens(relation_heads):
    torch.manual_seed(0)
    heads = captured(AutoModelForCausalLM.from_config(FAMILIES[0]).eval())[0]
    found = relation_logs(heads, keep=KEEP, relation_heads=relation_heads).exp()
    values = heads.values.double().transpose(1, 2).reshape(2, 7, relation_heads, -1)
    expected = torch.zeros_like(found, dtype=torch.float64)
    for row, (b, t) in enumerate(KEEP.nonzero().tolist()):
        for head in range(relation_heads):
            scores = [
                torch.dot(values[b, t, head], values[b, s, head]) / values.shape[3] ** 0.5
                for s in range(t + 1)
            ]
            expected[row, head, : t + 1] = torch.stack(scores).softmax(0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(CheckpointError, match=r"16 numbers a token.* 3 relation heads"):
        relation_logs(heads, keep=KEEP, relation_heads=3)
