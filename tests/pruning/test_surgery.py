"""A cut model answers as the masked one, keeps its ties, and loads in plain transformers."""

import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Glm4Config,
    Glm4ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from limbeck.contracts.errors import CheckpointError, ParityError
from limbeck.models.logit_parity import compare_models, tolerance_of
from limbeck.models.structure import find_channels, find_heads
from limbeck.pruning.rebuild import check_config
from limbeck.pruning.shapes import describe_cut
from limbeck.pruning.surgery import cut, mask

MEASURE = "max_logit_difference / max_logit"

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}
FUSED = {**SIZES, "num_key_value_heads": 2, "pad_token_id": 0}
MODELS = {
    "grouped_tied": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True)
    ),
    "ungrouped_untied": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SIZES, num_key_value_heads=4, head_dim=4, tie_word_embeddings=False)
    ),
    "one_query_each": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "biased": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, num_key_value_heads=2, attention_bias=True, mlp_bias=True)
    ),
    "derived_width": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2)),
    "fused": lambda: Phi3ForCausalLM(Phi3Config(**FUSED, tie_word_embeddings=True)),
    "fused_channels": lambda: Glm4ForCausalLM(
        Glm4Config(**FUSED, head_dim=8, attention_bias=True, tie_word_embeddings=False)
    ),
}


def build(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for item in model.parameters():  # Fresh biases are zero, which would hide mistakes.
        item.data.add_(torch.randn_like(item) * 0.05)
    return model


def plan(model):
    kept = dict.fromkeys(find_channels(model), (0, 2, 3, 7, 11, 20))
    for groups in find_heads(model):
        kept[groups] = (1,) if groups.num_groups == 2 else (0, 3)
    return kept


@pytest.mark.parametrize("name", MODELS)
def test_a_cut_model_answers_as_the_masked_one(name, tmp_path):
    model = build(name)
    before = copy.deepcopy(model.state_dict())
    kept = plan(model)
    ids = torch.randint(0, 40, (3, 9))
    original = model(input_ids=ids).logits
    masked = copy.deepcopy(model)
    removed = mask(masked, kept=kept)
    smaller = cut(model, kept=kept)
    assert 0.3 < removed < 1
    assert compare_models(masked, smaller, input_ids=ids).figure(MEASURE) <= 1e-6
    exact = cut(copy.deepcopy(model).double(), kept=kept)(input_ids=ids).logits
    # Norms round to float32, so that sums in another order may differ by a step of that in places.
    limit = 1e-8 * float(exact.detach().abs().max())
    torch.testing.assert_close(exact, masked.double()(input_ids=ids).logits, rtol=0, atol=limit)
    assert (original - smaller(input_ids=ids).logits).abs().max() > 1e-2
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert smaller.config.intermediate_size == 6
    assert smaller.model.layers[0].mlp.down_proj.weight.shape == (16, 6)
    heads = find_heads(smaller)[0].num_groups
    assert heads == len(kept[find_heads(model)[0]]) == smaller.config.num_key_value_heads
    tied = model.config.tie_word_embeddings
    assert (smaller.lm_head.weight is smaller.model.embed_tokens.weight) == tied
    smaller.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(input_ids=ids).logits, smaller(input_ids=ids).logits)


@pytest.mark.parametrize("name", ["grouped_tied", "biased", "fused", "fused_channels"])
def test_parameters_shrink_by_exactly_what_was_cut(name):
    model = build(name)
    kept = plan(model)
    gone = 0
    for groups, indices in kept.items():
        for index in set(range(groups.num_groups)) - set(indices):
            for piece in groups.slices(index):
                other = model.get_parameter(piece.parameter).numel()
                length = model.get_parameter(piece.parameter).shape[piece.axis]
                gone += (piece.stop - piece.start) * other // length
    smaller = cut(model, kept=kept)
    assert smaller.num_parameters() == model.num_parameters() - gone


def test_heads_of_a_mixture_can_be_cut(moe_config, tokenizer):
    config = moe_config.replace(num_attention_heads=4, num_key_value_heads=2)
    moe = config.build(tokenizer=tokenizer, seed=0).eval()
    kept = dict.fromkeys(find_heads(moe), (1,))
    smaller = cut(moe, kept=kept)
    mask(moe, kept=kept)
    ids = torch.randint(0, moe.config.vocab_size, (2, 5))
    assert compare_models(moe, smaller, input_ids=ids).figure(MEASURE) <= 1e-6


def test_cutting_keeps_generation_and_mode(dense):
    dense.generation_config.max_new_tokens = 3
    kept = {groups: tuple(range(8)) for groups in find_channels(dense)}
    smaller = cut(dense.train(), kept=kept)
    assert smaller.training
    assert smaller.generation_config.max_new_tokens == 3


def test_different_widths_are_refused(dense):
    first, second = find_channels(dense)
    with pytest.raises(CheckpointError, match="holds one number for all layers"):
        cut(dense, kept={first: (0, 1), second: (0,)})


def test_one_uncut_layer_is_refused(dense):
    with pytest.raises(CheckpointError, match="depend on the widths"):
        cut(dense, kept={find_channels(dense)[0]: (0, 1)})


LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "partial_rotary_factor": 1.0,
    "short_factor": [1.0, 1.1],
    "long_factor": [1.0, 2.0],
}


@pytest.mark.parametrize(
    ("config", "num_heads", "message"),
    [
        (Phi3Config(**FUSED, rope_parameters=LONG), 1, "must have length 4, got 2"),
        (LlamaConfig(**SIZES), 3, r"hidden size \(16\) is not a multiple .* heads \(3\)"),
    ],
)
def test_sizes_that_transformers_does_not_load_are_refused(config, num_heads, message):
    check_config(describe_cut(config, num_kept={"channels": 8, "layers": 1}))
    with pytest.raises(CheckpointError, match=message):
        check_config(describe_cut(config, num_kept={"heads": num_heads}))


def test_a_model_that_differs_is_a_parity_error(dense):
    smaller = cut(dense, kept={groups: tuple(range(8)) for groups in find_channels(dense)})
    difference = compare_models(dense, smaller, input_ids=torch.arange(6).unsqueeze(0))
    with pytest.raises(ParityError, match="differs"):
        difference.check(tolerance_of(dense), fault="differs", advice="")
