"""Groups cover exactly the parameters that belong together; what cannot be cut is refused."""

import pytest
import torch
from torch import nn
from transformers import (
    Glm4Config,
    Glm4ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from limbeck.contracts.errors import CheckpointError
from limbeck.models.structure import (
    Slice,
    find_channels,
    find_heads,
    match_depth,
    num_layers,
    view_groups,
)

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
FUSED = {**SIZES, "pad_token_id": 0}


def test_a_channel_is_gate_row_up_row_and_down_column(dense):
    found = find_channels(dense)
    assert [groups.layer for groups in found] == [0, 1]
    assert found[0].num_groups == dense.config.intermediate_size == 32
    assert found[1].slices(5) == (
        Slice("model.layers.1.mlp.gate_proj.weight", 0, 5, 6),
        Slice("model.layers.1.mlp.up_proj.weight", 0, 5, 6),
        Slice("model.layers.1.mlp.down_proj.weight", 1, 5, 6),
    )


def test_a_head_keeps_the_query_heads_it_serves():
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    (first, _) = find_heads(model)
    assert first.num_groups == 2
    assert first.slices(1) == (
        Slice("model.layers.0.self_attn.q_proj.weight", 0, 8, 16),
        Slice("model.layers.0.self_attn.k_proj.weight", 0, 4, 8),
        Slice("model.layers.0.self_attn.v_proj.weight", 0, 4, 8),
        Slice("model.layers.0.self_attn.o_proj.weight", 1, 8, 16),
    )


def test_sections_of_a_fused_matrix_belong_to_the_group():
    model = Phi3ForCausalLM(Phi3Config(**FUSED))
    assert find_channels(model)[1].slices(5) == (
        Slice("model.layers.1.mlp.gate_up_proj.weight", 0, 5, 6),
        Slice("model.layers.1.mlp.gate_up_proj.weight", 0, 29, 30),
        Slice("model.layers.1.mlp.down_proj.weight", 1, 5, 6),
    )
    assert find_heads(model)[0].slices(1) == (
        Slice("model.layers.0.self_attn.qkv_proj.weight", 0, 8, 16),
        Slice("model.layers.0.self_attn.qkv_proj.weight", 0, 20, 24),
        Slice("model.layers.0.self_attn.qkv_proj.weight", 0, 28, 32),
        Slice("model.layers.0.self_attn.o_proj.weight", 1, 8, 16),
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
        lambda: Phi3ForCausalLM(Phi3Config(**FUSED)),
        lambda: Glm4ForCausalLM(Glm4Config(**FUSED, head_dim=8, attention_bias=True)),
    ],
)
def test_every_row_and_column_belongs_to_one_group(build):
    model = build()
    for find, block in ((find_channels, "mlp"), (find_heads, "self_attn")):
        owners = {
            name: torch.zeros_like(item)
            for name, item in model.named_parameters()
            if f".{block}." in name
        }
        for groups in find(model):
            for index in range(groups.num_groups):
                for piece in groups.slices(index):
                    view = owners[piece.parameter].narrow(
                        piece.axis, piece.start, piece.stop - piece.start
                    )
                    view += 1
        assert all(bool((count == 1).all()) for count in owners.values())


def test_a_fused_matrix_that_does_not_divide_into_heads_is_refused():
    model = Phi3ForCausalLM(Phi3Config(**FUSED))
    model.model.layers[0].self_attn.qkv_proj = nn.Linear(16, 33, bias=False)
    with pytest.raises(CheckpointError, match="do not divide into 4 heads"):
        find_heads(model)


def test_groups_cover_every_weight_of_their_blocks_once(dense):
    for find, block in ((find_channels, "mlp"), (find_heads, "self_attn")):
        covered = {part.parameter for groups in find(dense) for part in groups.parts}
        expected = {
            name
            for name, item in dense.named_parameters()
            if f".{block}." in name and item.ndim == 2
        }
        assert covered == expected


def test_biases_of_rows_belong_to_the_group():
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES))
    names = [part.parameter.rsplit("self_attn.")[1] for part in find_heads(model)[0].parts]
    assert names == [
        "q_proj.weight",
        "q_proj.bias",
        "k_proj.weight",
        "k_proj.bias",
        "v_proj.weight",
        "v_proj.bias",
        "o_proj.weight",
    ]


def test_views_write_through(dense):
    groups = find_channels(dense)[0]
    part = groups.parts[2]
    parameter = dense.get_parameter(part.parameter)
    with torch.no_grad():
        view_groups(parameter, part=part, num_groups=groups.num_groups)[3] = 7.0
    assert bool((parameter[:, 3] == 7.0).all())
    assert int((parameter == 7.0).sum()) == parameter.shape[0]


def test_a_mixture_has_heads_to_cut_but_no_dense_channels(moe):
    assert len(find_heads(moe)) == num_layers(moe) == 2
    with pytest.raises(CheckpointError, match="built like Llama and Qwen3"):
        find_channels(moe)


def test_other_architectures_are_refused():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2))
    for find in (find_channels, find_heads, num_layers):
        with pytest.raises(CheckpointError, match="GPT2LMHeadModel"):
            find(model)


def test_norms_over_all_heads_forbid_cutting_heads():
    model = Olmo2ForCausalLM(Olmo2Config(**SIZES))
    assert len(find_channels(model)) == 2
    with pytest.raises(CheckpointError, match="would change the others"):
        find_heads(model)


def test_uneven_heads_and_foreign_layers_are_refused(dense):
    dense.config.num_key_value_heads = 3
    with pytest.raises(CheckpointError, match="shared evenly"):
        find_heads(dense)
    dense.model.layers[0].mlp.up_proj = nn.Identity()
    with pytest.raises(CheckpointError, match="expected a float linear layer, found Identity"):
        find_channels(dense)


def test_unknown_parameters_of_a_block_are_refused(dense):
    dense.model.layers[1].mlp.sinks = nn.Parameter(torch.zeros(3))
    with pytest.raises(CheckpointError, match="sinks"):
        find_channels(dense)


def test_depths_are_spread_evenly_and_the_last_meet():
    depths = [match_depth(layer, num_layers=3, num_sources=8) for layer in (1, 2, 3)]
    assert depths == [3, 6, 8]
    assert [match_depth(layer, num_layers=4, num_sources=4) for layer in range(1, 5)] == [
        1,
        2,
        3,
        4,
    ]
