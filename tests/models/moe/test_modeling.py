"""The sparse teacher against a plain loop, against transformers, and through a save."""

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeMLP

from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.forward import measure_entropy
from limbeck.models.moe.layers import (
    Experts,
    Gate,
    GateRules,
    Routing,
    SparseFeedForward,
    limit_groups,
)


def loop_reference(layer: SparseFeedForward, x: torch.Tensor) -> torch.Tensor:
    """Every token through each of its experts, one product at a time."""
    routing = layer.gate(x)
    rows = []
    for token in range(len(x)):
        total = torch.zeros_like(x[0])
        for pick, weight in zip(routing.picked[token], routing.weights[token], strict=True):
            gate, up = (layer.experts.gate_up_proj[pick] @ x[token]).chunk(2)
            hidden = torch.nn.functional.silu(gate) * up
            total = total + weight * (layer.experts.down_proj[pick] @ hidden)
        if layer.shared_expert is not None:
            shared = layer.shared_expert
            gate, up = shared.gate_proj.weight @ x[token], shared.up_proj.weight @ x[token]
            total = total + shared.down_proj.weight @ (torch.nn.functional.silu(gate) * up)
        rows.append(total)
    return torch.stack(rows)


def sparse_layer(picks: int = 2, *, fusion=None, shared_width=0, **rules) -> SparseFeedForward:
    torch.manual_seed(0)
    shared = None
    if shared_width:
        shared = Qwen3MoeMLP(Qwen3MoeConfig(hidden_size=16), intermediate_size=shared_width)
    layer = SparseFeedForward(
        GateRules(picks, **rules),
        num_experts=8,
        hidden=16,
        width=8,
        activation="silu",
        fusion=fusion,
        shared_expert=shared,
    )
    for item in layer.parameters():
        torch.nn.init.normal_(item, std=0.3)
    return layer


@pytest.mark.parametrize(
    "settings",
    [
        {"picks": 1},
        {"picks": 2},
        {"picks": 3},
        {"shared_width": 24},
        {"scale": 2.5},
        {"scoring": "sigmoid"},
        {"scoring": "sigmoid", "normalize": "none"},
        {"picks": 2, "num_groups": 4, "groups_per_token": 2},
    ],
)
def test_layer_equals_the_loop_forward_and_backward(settings):
    layer = sparse_layer(**settings)
    x = torch.randn(24, 16, requires_grad=True)
    ours = layer(x.unsqueeze(0))[0][0]
    theirs = loop_reference(layer, x)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    direction = torch.randn_like(ours)
    names = [x, *layer.parameters()]
    first = torch.autograd.grad((ours * direction).sum(), names)
    second = torch.autograd.grad((theirs * direction).sum(), names)
    for left, right in zip(first, second, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-4)


def test_decoding_a_token_equals_the_grouped_product():
    layer = sparse_layer()
    x = torch.randn(1, 5, 16)
    with torch.no_grad():
        few = layer(x)[0]
    grouped = layer(x)[0]
    torch.testing.assert_close(few, grouped.detach(), atol=1e-6, rtol=1e-5)


def test_order_of_experts_does_not_matter():
    layer = sparse_layer()
    x = torch.randn(1, 24, 16)
    before = layer(x)[0].detach()
    order = torch.randperm(8)
    with torch.no_grad():
        layer.gate.weight.copy_(layer.gate.weight[order])
        layer.experts.gate_up_proj.copy_(layer.experts.gate_up_proj[order])
        layer.experts.down_proj.copy_(layer.experts.down_proj[order])
    torch.testing.assert_close(layer(x)[0].detach(), before, atol=1e-6, rtol=1e-5)


def test_one_pick_keeps_the_gates_gradient():
    layer = sparse_layer(picks=1)
    layer(torch.randn(1, 24, 16))[0].square().sum().backward()
    assert layer.gate.weight.grad is not None
    assert layer.gate.weight.grad.abs().sum() > 0


def test_bias_changes_the_picks_and_never_the_weights():
    gate = sparse_layer().gate
    x = torch.randn(64, 16)
    plain = gate(x)
    gate.balance_bias[3] = 10.0
    biased = gate(x)
    assert (biased.picked == 3).any(dim=1).all()
    probabilities = plain.logits.softmax(dim=-1).gather(1, biased.picked)
    expected = probabilities / probabilities.sum(dim=1, keepdim=True)
    torch.testing.assert_close(biased.weights, expected)


def test_gate_stays_float32_under_mixed_precision():
    gate = sparse_layer().gate
    x = torch.randn(64, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        routing = gate(x)
    assert routing.logits.dtype == torch.float32
    assert torch.equal(routing.picked, gate(x).picked)


def test_layer_trains_under_mixed_precision():
    layer = sparse_layer()
    x = torch.randn(1, 24, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(x)[0]
    mixed.float().square().sum().backward()
    torch.testing.assert_close(mixed.float(), layer(x)[0], atol=5e-2, rtol=5e-2)


def test_plain_settings_equal_transformers_qwen3_moe(moe, moe_config):
    theirs = Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=moe.config.vocab_size,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            num_experts=8,
            num_experts_per_tok=2,
            moe_intermediate_size=8,
            norm_topk_prob=True,
            tie_word_embeddings=True,
            rope_parameters=moe.config.rope_parameters,
        )
    ).eval()
    weights = {name: item for name, item in moe.state_dict().items() if "balance" not in name}
    theirs.load_state_dict(weights)
    ids = torch.randint(4, moe.config.vocab_size, (3, 11))
    with torch.no_grad():
        torch.testing.assert_close(moe(ids).logits, theirs(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("which", ["moe", "dense"])
def test_save_and_load_give_the_same_logits(which, request, tokenizer, tmp_path):
    model = request.getfixturevalue(which)
    if which == "moe":
        model.model.layers[0].mlp.gate.balance_bias += torch.arange(8) / 100
    save_checkpoint(model, tokenizer=tokenizer, folder=tmp_path)
    ids = torch.randint(4, model.config.vocab_size, (2, 9))
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(ids).logits, model(ids).logits)


def test_auto_classes_generate_with_and_without_a_cache(moe, tokenizer, tmp_path):
    save_checkpoint(moe, tokenizer=tokenizer, folder=tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.randint(4, model.config.vocab_size, (2, 6))
    mask = torch.ones_like(ids)
    settings = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    cached = model.generate(ids, attention_mask=mask, use_cache=True, **settings)
    plain = model.generate(ids, attention_mask=mask, use_cache=False, **settings)
    assert torch.equal(cached, plain)


def test_checkpointed_layers_give_the_same_gradient(moe):
    ids = torch.randint(4, moe.config.vocab_size, (2, 9))
    moe.train()
    moe(ids, labels=ids).loss.backward()
    plain = {name: item.grad.clone() for name, item in moe.named_parameters()}
    moe.zero_grad()
    moe.activation_checkpointing_enable()
    moe(ids, labels=ids).loss.backward()
    for name, item in moe.named_parameters():
        torch.testing.assert_close(item.grad, plain[name], atol=1e-6, rtol=1e-5)


def test_fresh_weights_are_the_configs(moe):
    for module in moe.modules():
        if isinstance(module, Gate):
            assert not module.balance_bias.any()
        if isinstance(module, Experts):
            assert 0.1 < module.down_proj.std() < 0.3


def test_groups_limit_the_picks_to_the_strongest_two():
    scores = torch.tensor([[0.9, 0.0, 0.5, 0.5, 0.1, 0.1, 0.6, 0.5]])
    limited = limit_groups(scores, num_groups=4, groups_per_token=2)
    # Sums of the best two of each group: 0.9, 1.0, 0.2, 1.1.
    assert torch.isfinite(limited[0]).tolist() == [
        False,
        False,
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert torch.equal(limited[:, 2:4], scores[:, 2:4])
    every = limit_groups(scores, num_groups=4, groups_per_token=4)
    assert torch.equal(every, scores)


def test_a_token_picks_from_its_groups_alone():
    layer = sparse_layer(3, num_groups=4, groups_per_token=2)
    picked = layer.gate(torch.randn(64, 16)).picked
    assert all(len({int(pick) // 2 for pick in row}) <= 2 for row in picked)


def test_sigmoid_scores_are_weighed_unbiased_and_probabilities_sum_to_one():
    gate = sparse_layer(2, scoring="sigmoid", scale=2.0).gate
    gate.balance_bias[3] = 10.0
    routing = gate(torch.randn(64, 16))
    assert (routing.picked == 3).any(dim=1).all()
    scores = routing.logits.sigmoid().gather(1, routing.picked)
    torch.testing.assert_close(routing.weights, 2 * scores / scores.sum(dim=1, keepdim=True))
    torch.testing.assert_close(routing.probabilities.sum(dim=1), torch.ones(64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_group": 3}, "make it a multiple"),
        ({"n_group": 2, "topk_group": 3}, "raise topk_group"),
        ({"n_group": 8, "num_experts_per_tok": 2}, "raise topk_group"),
        ({"fusion": "attention", "fusion_heads": 3}, "fusion_heads 3"),
    ],
)
def test_impossible_gates_are_refused(changes, message, moe_config):
    with pytest.raises(ValidationError, match=message):
        moe_config.replace(**changes)


def test_entropy_is_one_for_an_even_gate_and_zero_for_a_sure_one():
    tokens = torch.tensor([True, True, False])
    even, sure = torch.full((3, 8), 1 / 8), torch.eye(8)[:3]
    routing = [
        Routing(item.log(), item, torch.zeros(3, 2, dtype=torch.long), torch.ones(3, 2))
        for item in (even, sure)
    ]
    assert measure_entropy(routing, tokens=tokens).tolist() == pytest.approx([2.0, 0.0])
