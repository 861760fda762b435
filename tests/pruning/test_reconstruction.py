"""What is left of a cut model is fitted to the uncut one, layer after layer."""

import copy

import pytest
import torch
from torch import nn
from transformers import CohereConfig, CohereForCausalLM

from limbeck.contracts.errors import CheckpointError
from limbeck.models.block_by_block import BlockByBlock
from limbeck.models.checkpoints import load_model
from limbeck.models.logit_parity import measure_kl
from limbeck.models.structure import find_channels, find_heads
from limbeck.pruning.depth import cut_layers
from limbeck.pruning.kept_parts import KeptParts
from limbeck.pruning.reconstruction import reconstruct
from limbeck.pruning.surgery import cut, find_rows
from limbeck.pruning.width import find_stream, take_channels
from tests.support.families import SIZES, make_family
from tests.support.token_batch import token_batch

SEEDED = torch.Generator().manual_seed(0)
BATCHES = [token_batch(torch.randint(3, 60, (8, 16), generator=SEEDED)) for _ in range(8)]
HELD_OUT = [token_batch(torch.randint(3, 60, (8, 16), generator=SEEDED))]
ALL = {"layers": range(2), "channels": range(64)}


def load(folder, name="Llama 3", **changes):
    return load_model(make_family(folder / "model", name=name, **changes)).eval()


def fit(smaller, *, uncut, batches=BATCHES, damping_ratio=1e-6, **kept):
    return reconstruct(
        smaller,
        uncut=uncut,
        kept=KeptParts(**(ALL | kept)),
        batches=batches,
        damping_ratio=damping_ratio,
    ).num_fitted


def cut_groups(model, *, share=0.75, find=find_channels):
    kept = {groups: tuple(range(round(share * groups.num_groups))) for groups in find(model)}
    return cut(model, kept=kept), find_rows(model, kept=kept)


def test_a_channel_that_others_can_stand_for_is_not_missed(tmp_path):
    """The last channels are copies of the first ones, whose columns therefore take theirs over."""
    uncut = load(tmp_path)
    for layer in uncut.model.layers:
        for linear in (layer.mlp.gate_proj, layer.mlp.up_proj):
            linear.weight.data[48:] = linear.weight.data[:16]
    smaller, rows = cut_groups(uncut)
    assert measure_kl(uncut, smaller, batches=HELD_OUT) > 0.1
    assert fit(smaller, uncut=uncut, rows=rows) == 14
    assert measure_kl(uncut, smaller, batches=HELD_OUT) < 1e-6
    for layer, whole in zip(smaller.model.layers, uncut.model.layers, strict=True):
        columns = whole.mlp.down_proj.weight.clone()
        columns[:, :16] += columns[:, 48:]
        torch.testing.assert_close(
            layer.mlp.down_proj.weight, columns[:, :48], rtol=0.01, atol=0.01
        )


@pytest.mark.parametrize(
    "name",
    ["Llama 3", "Gemma 2", "Gemma 3", "Phi-3", "GLM-4", "Llama with biases", "OLMo 2", "Granite"],
)
@pytest.mark.parametrize("find", [find_channels, find_heads])
def test_cut_groups_are_made_up_for_in_part(find, name, tmp_path):
    """Little of what independent random weights make can be had from others."""
    if (name, find) == ("OLMo 2", find_heads):
        pytest.skip("its norms span several heads, which are not cut")
    uncut = load(tmp_path, name)
    smaller, rows = cut_groups(uncut, find=find, share=0.5)
    before = measure_kl(uncut, smaller, batches=HELD_OUT)
    num_fitted = {"Phi-3": 8, "GLM-4": 12}.get(name, 14)
    assert fit(smaller, uncut=uncut, rows=rows, damping_ratio=0.01) == num_fitted
    assert measure_kl(uncut, smaller, batches=HELD_OUT) < 0.9 * before


def test_a_layer_makes_up_for_those_left_out_behind_it(tmp_path):
    uncut = load(tmp_path, num_hidden_layers=4)
    gone = uncut.model.layers[2]
    for linear in (gone.self_attn.o_proj, gone.mlp.down_proj):
        linear.weight.data *= 0.1
    smaller = cut_layers(uncut, kept=(0, 1, 3))
    left = copy.deepcopy(smaller)
    before = measure_kl(uncut, smaller, batches=HELD_OUT)
    assert fit(smaller, uncut=uncut, layers=(0, 1, 3), damping_ratio=0.01) == 21
    assert measure_kl(uncut, smaller, batches=HELD_OUT) < 0.8 * before
    for key, tensor in smaller.model.layers[0].state_dict().items():
        torch.testing.assert_close(tensor, left.model.layers[0].state_dict()[key])
    goal = uncut.model(HELD_OUT[0].input_ids, output_hidden_states=True).hidden_states[3]
    found, before = (
        model.model(HELD_OUT[0].input_ids, output_hidden_states=True).hidden_states[2]
        for model in (smaller, left)
    )
    assert (found - goal).norm() < 0.95 * (before - goal).norm()


def test_attention_makes_up_for_what_the_stream_lost_before(tmp_path):
    """A feed-forward part that is gone is missed in the stream, and in no output behind it."""
    uncut = load(tmp_path)
    smaller = copy.deepcopy(uncut)
    smaller.model.layers[0].mlp = Nothing()
    before = measure_kl(uncut, smaller, batches=HELD_OUT)
    assert fit(smaller, uncut=uncut, damping_ratio=0.01) == 11
    assert measure_kl(uncut, smaller, batches=HELD_OUT) < 0.8 * before


class Nothing(nn.Module):
    """A part that adds nothing."""

    def forward(self, given):
        return torch.zeros_like(given)


def test_a_narrower_stream_is_made_up_for_in_part(tmp_path):
    uncut = load(tmp_path)
    kept = tuple(range(48))
    smaller = take_channels(uncut, stream=find_stream(uncut), kept=kept)
    before = measure_kl(uncut, smaller, batches=HELD_OUT)
    assert fit(smaller, uncut=uncut, channels=kept, damping_ratio=0.01) == 14
    assert measure_kl(uncut, smaller, batches=HELD_OUT) < 0.8 * before


@pytest.mark.parametrize(
    ("name", "num_fitted"),
    [("Qwen3-MoE", 8), ("Mixtral", 8), ("Qwen3-Next", 4), ("DeepSeek-V3", 5)],
)
def test_of_a_mixture_attention_is_fitted(name, num_fitted, tmp_path):
    uncut = load(tmp_path, name)
    smaller = copy.deepcopy(uncut)
    for layer in smaller.model.layers:
        if hasattr(layer, "self_attn"):
            layer.self_attn.o_proj.weight.data[:, ::2] = 0
    before = measure_kl(uncut, smaller, batches=HELD_OUT)
    assert fit(smaller, uncut=uncut) == num_fitted
    assert measure_kl(uncut, smaller, batches=HELD_OUT) < 0.8 * before


def test_blocks_that_are_done_need_not_run_again(tmp_path, monkeypatch):
    uncut = load(tmp_path)
    smaller, rows = cut_groups(uncut)
    again = copy.deepcopy(smaller)
    fit(smaller, uncut=uncut, rows=rows)
    monkeypatch.setattr(BlockByBlock, "_check_resuming", lambda self: False)
    fit(again, uncut=uncut, rows=rows)
    for key, item in again.state_dict().items():
        assert torch.equal(item, smaller.state_dict()[key])


def test_cuts_of_all_kinds_are_made_up_for_together(tmp_path):
    uncut = load(tmp_path, num_hidden_layers=4)
    channels, layers = tuple(range(0, 64, 2)), (0, 1, 3)
    smaller, rows = cut_groups(uncut, share=0.5)
    smaller = cut_layers(smaller, kept=layers)
    smaller = take_channels(smaller, stream=find_stream(smaller), kept=channels)
    before = measure_kl(uncut, smaller, batches=HELD_OUT)
    kept = {"rows": rows, "layers": layers, "channels": channels}
    assert fit(smaller, uncut=uncut, damping_ratio=0.01, **kept) == 21
    assert measure_kl(uncut, smaller, batches=HELD_OUT) < 0.9 * before


def load_dense_qwen3_next(folder):
    kinds = ["linear_attention", "full_attention", "full_attention"]
    dense = {"num_hidden_layers": 3, "layer_types": kinds, "mlp_only_layers": [0, 1, 2]}
    return load(folder, "Qwen3-Next", **dense)


def make_cohere(_):
    torch.manual_seed(0)
    sizes = {key: value for key, value in SIZES.items() if key not in ("head_dim", "bos_token_id")}
    return CohereForCausalLM(CohereConfig(**sizes | {"num_hidden_layers": 3})).eval()


@pytest.mark.parametrize("make", [load_dense_qwen3_next, make_cohere])
def test_a_part_makes_up_for_the_stream_whatever_stands_beside_it(make, tmp_path):
    """Linear attention, or attention that runs beside it; the next layer is left out."""
    uncut = make(tmp_path)
    smaller = cut_layers(uncut, kept=(0, 2))
    before = copy.deepcopy(smaller.model.layers[0].mlp.down_proj.weight)
    fit(smaller, uncut=uncut, layers=(0, 2), damping_ratio=0.01)
    change = (smaller.model.layers[0].mlp.down_proj.weight - before).norm()
    assert change > 0.01 * before.norm()


def test_few_tokens_change_nothing(tmp_path, caplog):
    uncut = load(tmp_path)
    smaller, rows = cut_groups(uncut)
    before = copy.deepcopy(smaller.state_dict())
    few = [token_batch(torch.tensor([[3, 4, 5]])), token_batch(torch.tensor([[6, 7, 8]]))]
    assert fit(smaller, uncut=uncut, rows=rows, batches=few) == 0
    assert "14 of 14 linear layers stay as they were" in caplog.text
    for key, item in smaller.state_dict().items():
        assert torch.equal(item, before[key])


def test_what_is_not_finite_is_named(tmp_path):
    uncut = load(tmp_path)
    smaller, rows = cut_groups(uncut)
    smaller.model.layers[1].input_layernorm.weight.data[3] = float("nan")
    with pytest.raises(CheckpointError, match=r"self_attn.q_proj.* not finite .*reconstruction"):
        fit(smaller, uncut=uncut, rows=rows)
