"""GPTQ over whole models: every linear layer, block by block, and what is stored afterwards."""

import pytest
import torch
from torch import nn

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.parity import compare_logits
from limbeck.models.block_by_block import BlockByBlock
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.gptq.rounding import find_rounded, round_by_gptq
from limbeck.models.logit_parity import compute_logits
from limbeck.models.tokenizers import load_tokenizer
from limbeck.quantization.formats.int4 import Int4
from limbeck.quantization.layers import QuantizedLinear
from limbeck.quantization.qat import convert, prepare_for_qat
from tests.support.families import make_family
from tests.support.token_batch import token_batch

SEEDED = torch.Generator().manual_seed(0)
BATCHES = [token_batch(torch.randint(3, 60, (8, 16), generator=SEEDED)) for _ in range(2)]
IDS = torch.randint(3, 60, (4, 12), generator=SEEDED)
INT4 = Int4(kind="int4")


def run(model, batches=BATCHES):
    return round_by_gptq(model, batches=batches, number_format=INT4, damping_ratio=0.01)


def load(folder, name="Llama 3"):
    return load_model(make_family(folder / "model", name=name))


@pytest.mark.parametrize(
    ("name", "num_layers"),
    [("Llama 3", 14), ("Gemma 3", 14), ("Phi-3", 8), ("DeepSeek-V3", 16), ("gpt-oss", 8)],
)
def test_every_linear_layer_but_the_head_is_rounded(name, num_layers, tmp_path):
    """Tied or not, the head and the embeddings keep their weights; so do stacked experts."""
    model = load(tmp_path, name)
    before = {key: item.clone() for key, item in model.state_dict().items()}
    layers, _ = find_rounded(model, number_format=INT4)
    assert len(layers) == num_layers
    found = run(model)
    assert (found.num_chosen, found.num_nearest) == (num_layers, 0)
    assert found.metrics()["gptq_error_ratio"] < 0.9
    for key, item in model.state_dict().items():
        assert torch.equal(item, before[key]) != (key.removesuffix(".weight") in layers)


def test_less_of_the_model_is_lost(tmp_path):
    floats = compute_logits(load(tmp_path), input_ids=IDS)

    def lost(model):
        codes = convert(model, number_format=INT4)
        return compare_logits([(floats, compute_logits(codes, input_ids=IDS))]).mean_kl

    chosen = load(tmp_path)
    run(chosen)
    assert lost(chosen) < 0.8 * lost(load(tmp_path))


def test_codes_stay_through_training_for_them_and_storing(tmp_path):
    model = load(tmp_path)
    run(model)
    weights = {
        name: item.weight.clone()
        for name, item in find_rounded(model, number_format=INT4)[0].items()
    }
    prepare_for_qat(model, number_format=INT4)
    model = convert(model, number_format=INT4)
    save_checkpoint(model, tokenizer=load_tokenizer(tmp_path / "model"), folder=tmp_path / "int4")
    stored = load_model(tmp_path / "int4")
    for name, weight in weights.items():
        layer = stored.get_submodule(name)
        assert isinstance(layer, QuantizedLinear)
        codes = INT4.quantize(weight)
        assert torch.equal(layer.weight, codes.codes)
        assert torch.equal(layer.weight_scale, codes.scale)
        assert torch.equal(INT4.dequantize(codes), weight)


@pytest.mark.parametrize("name", ["Qwen3-Next", "Gemma 2"])
def test_blocks_that_are_done_need_not_run_again(name, tmp_path, monkeypatch):
    resumed, whole = load(tmp_path, name), load(tmp_path, name)
    assert BlockByBlock(resumed, batches=BATCHES).resumes
    run(resumed)
    monkeypatch.setattr(BlockByBlock, "_check_resuming", lambda self: False)
    run(whole)
    for key, item in whole.state_dict().items():
        assert torch.equal(item, resumed.state_dict()[key])


def test_a_model_whose_blocks_read_more_than_the_one_before_runs_whole(tmp_path):
    model = load(tmp_path)
    first, second = model.model.layers
    forward, kept = second.forward, []
    first.mlp.register_forward_hook(lambda module, inputs, output: kept.append(output))
    second.forward = lambda given, **settings: forward(given + sum(kept), **settings)
    second.register_forward_hook(lambda module, inputs, output: kept.clear())
    passes = BlockByBlock(model, batches=BATCHES)
    assert not passes.resumes
    assert run(model).num_chosen == 14


class LinearExperts(nn.Module):
    """Two experts that are linear layers; few tokens pick the second one, in flat rows."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(3))

    def forward(self, given):
        rows = given.flatten(0, 1)
        made = torch.cat([self.experts[0](rows[5:]), self.experts[1](rows[:5])])
        return made.view_as(given)


def test_an_expert_that_too_few_tokens_reach_keeps_its_nearest_codes(tmp_path):
    model = load(tmp_path)
    torch.manual_seed(0)
    model.model.layers[1].mlp = LinearExperts()
    before = [item.weight.clone() for item in model.model.layers[1].mlp.experts]
    found = run(model)
    assert (found.num_chosen, found.num_nearest) == (12, 2)
    moved = [
        not torch.equal(item.weight, weight)
        for item, weight in zip(model.model.layers[1].mlp.experts, before, strict=True)
    ]
    assert moved == [True, False, False]


def test_a_weight_of_several_layers_keeps_its_nearest_codes(tmp_path):
    model = load(tmp_path)
    first, second = model.model.layers
    second.mlp.up_proj.weight = first.mlp.up_proj.weight
    found = run(model)
    assert (found.num_chosen, found.num_nearest) == (12, 2)


def test_padding_is_not_measured(tmp_path):
    plain, padded = load(tmp_path), load(tmp_path)
    run(plain)
    run(padded, [pad(batch) for batch in BATCHES])
    for key, item in plain.state_dict().items():
        torch.testing.assert_close(item, padded.state_dict()[key])


def pad(batch):
    ids = torch.nn.functional.pad(batch.input_ids, (0, 3), value=1)
    padded = token_batch(ids)
    padded.tokens[:, -3:] = False
    return padded


def test_too_few_records_and_numbers_that_are_none_are_told(tmp_path, caplog):
    model = load(tmp_path)
    assert run(model, [token_batch(IDS)]).num_chosen == 0
    assert "set `num_records` higher" in caplog.text
    model.model.layers[1].input_layernorm.weight.data[0] = torch.inf
    with pytest.raises(CheckpointError, match=r"layers\.1\.self_attn\.\w+: what it reads is not"):
        run(model)
