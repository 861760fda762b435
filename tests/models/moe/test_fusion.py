"""Fusion: attention starts as the weighted sum, heads mix their own channels, nothing leaks."""

import pytest
import torch

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.moe.fusion import (
    AttentionFusion,
    FullAttentionFusion,
    attend_to_experts,
    build_fusion,
    weighted_sum,
)
from limbeck.models.moe.modeling import LimbeckMoeForCausalLM

N, K, D = 7, 3, 16


def inputs(*, total=1.0):
    torch.manual_seed(0)
    outputs = torch.randn(N, K, D, requires_grad=True)
    weights = torch.rand(N, K).softmax(dim=-1) * total
    return torch.randn(N, D), outputs, weights.requires_grad_()


def reference(queries, keys, values, weights):
    """One token, one head at a time, in float64."""
    num_tokens, num_heads, rank = queries.shape
    width = values.shape[2] // num_heads
    rows = torch.zeros(num_tokens, values.shape[2], dtype=torch.float64)
    for token in range(num_tokens):
        for head in range(num_heads):
            scores = (keys[token, :, head].double() @ queries[token, head].double()) / rank**0.5
            shares = weights[token].double() * scores.exp()
            shares = shares / shares.sum() * weights[token].double().sum()
            part = slice(head * width, (head + 1) * width)
            rows[token, part] = shares @ values[token, :, part].double()
    return rows


@pytest.mark.parametrize("total", [1.0, 0.3, 2.5])
def test_zero_queries_are_the_weighted_sum_whatever_the_weights_add_up_to(total):
    x, outputs, weights = inputs(total=total)
    fusion = AttentionFusion(hidden=D, num_heads=4, rank=3)
    fused = fusion(x, outputs=outputs, weights=weights)
    torch.testing.assert_close(fused, weighted_sum(outputs, weights), atol=1e-6, rtol=1e-5)


def test_heads_equal_a_loop_in_float64():
    _, outputs, weights = inputs()
    queries, keys = torch.randn(N, 4, 5), torch.randn(N, K, 4, 5)
    fused = attend_to_experts(queries=queries, keys=keys, values=outputs, weights=weights)
    expected = reference(queries, keys, outputs.detach(), weights.detach())
    torch.testing.assert_close(fused.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["attention", "full_attention"])
def test_tokens_do_not_attend_to_each_other_and_every_input_has_a_gradient(kind):
    x, outputs, weights = inputs()
    fusion = build_fusion(kind, hidden=D, num_heads=4, rank=3)
    assert isinstance(fusion, AttentionFusion | FullAttentionFusion)
    with torch.no_grad():
        for item in fusion.parameters():
            item += 0.1 * torch.randn_like(item)
    whole = fusion(x, outputs=outputs, weights=weights)
    alone = fusion(x[2:3], outputs=outputs[2:3], weights=weights[2:3])
    torch.testing.assert_close(whole[2:3], alone, atol=1e-6, rtol=1e-5)
    whole.square().sum().backward()
    for item in (outputs, weights, *fusion.parameters()):
        assert item.grad is not None
        assert item.grad.abs().sum() > 0


def test_one_pick_leaves_the_gate_its_gradient():
    x, outputs, _ = inputs()
    weights = torch.full((N, 1), 0.4, requires_grad=True)
    fusion = AttentionFusion(hidden=D, num_heads=4, rank=3)
    fusion(x, outputs=outputs[:, :1], weights=weights).square().sum().backward()
    assert weights.grad is not None
    assert (weights.grad.abs() > 0).all()


def test_a_weight_of_zero_gives_no_nan():
    x, outputs, _ = inputs()
    weights = torch.tensor([[1.0, 0.0, 0.0]]).repeat(N, 1).requires_grad_()
    fused = AttentionFusion(hidden=D, num_heads=4, rank=3)(x, outputs=outputs, weights=weights)
    fused.sum().backward()
    assert fused.isfinite().all()
    assert weights.grad is not None
    assert weights.grad.isfinite().all()


def test_an_unknown_fusion_is_named():
    with pytest.raises(CheckpointError, match="full_attention"):
        build_fusion("mean", hidden=D, num_heads=4, rank=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"fusion": "attention"},
        {"fusion": "full_attention"},
        {"n_shared_experts": 2},
        {
            "scoring_func": "sigmoid",
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 2.5,
        },
    ],
)
def test_every_form_survives_a_save_generates_and_learns(changes, moe_config, tokenizer, tmp_path):
    model = moe_config.replace(fusion_rank=4, **changes).build(tokenizer=tokenizer, seed=0)
    with torch.no_grad():
        for item in model.parameters():
            item += 0.01 * torch.randn_like(item)
    save_checkpoint(model.eval(), tokenizer=tokenizer, folder=tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, LimbeckMoeForCausalLM)
    ids = torch.randint(4, model.config.vocab_size, (2, 9))
    with torch.no_grad():
        # Loaded weights lie elsewhere in memory, and small products round by their alignment.
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=1e-6, rtol=1e-5)
    settings = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    mask = torch.ones_like(ids)
    cached = loaded.generate(ids, attention_mask=mask, use_cache=True, **settings)
    plain = loaded.generate(ids, attention_mask=mask, use_cache=False, **settings)
    assert torch.equal(cached, plain)
    loaded.train()(ids, labels=ids).loss.backward()
    missing = [name for name, item in loaded.named_parameters() if item.grad is None]
    assert not missing


def test_attention_starts_as_the_weighted_sum_in_a_whole_model(moe_config, tokenizer):
    plain = moe_config.build(tokenizer=tokenizer, seed=0).eval()
    fused = moe_config.replace(fusion="attention").build(tokenizer=tokenizer, seed=1).eval()
    fused.load_state_dict(plain.state_dict(), strict=False)
    ids = torch.randint(4, plain.config.vocab_size, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(fused(ids).logits, plain(ids).logits, atol=1e-5, rtol=1e-5)
