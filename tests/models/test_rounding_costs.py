"""What rounding costs is told by the block and the layer where it is lost."""

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import BloomConfig, BloomForCausalLM

from limbeck.contracts.parity import compare_logits
from limbeck.models.checkpoints import load_model
from limbeck.models.logit_parity import compute_logits
from limbeck.models.rounding_costs import RoundingCosts, measure_blocks, measure_layers
from limbeck.quantization.formats.int4 import Int4
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.qat import prepare_for_qat, quantize_in_place
from tests.support.families import make_family
from tests.support.token_batch import token_batch

IDS = torch.randint(3, 60, (4, 12), generator=torch.Generator().manual_seed(0))
BATCH = token_batch(IDS)
INT8, INT4 = Int8(kind="int8"), Int4(kind="int4")
BLOCKS = ["model.embed_tokens", "model.layers.0", "model.layers.1", "lm_head"]


def open_family(folder, name="Llama with biases"):
    """A model whose second block has a channel of thirty times the others."""
    model = load_model(make_family(folder / "model", name=name))
    model.model.layers[1].mlp.up_proj.weight.data[3] *= 30
    return model


@pytest.mark.parametrize("number_format", [INT8, INT4])
def test_a_layer_costs_what_its_codes_change(number_format, tmp_path):
    model = open_family(tmp_path)
    prepare_for_qat(model, number_format=number_format)
    read = {}
    for name, module in model.named_modules():
        if name.endswith("down_proj"):
            module.register_forward_hook(
                lambda _, given, __, name=name: read.update({name: given[0]})
            )
    found = measure_layers(model, batches=[BATCH])
    assert len(found) == 15  # seven of each block, and the head
    assert found == sorted(found, key=lambda item: -item.error_ratio)
    costs = {item.name: item for item in found}
    for name, given in read.items():
        parameters = dict(model.get_submodule(name).named_parameters())
        weight, bias = (
            None if item is None else item.detach()
            for item in (parameters["weight"], parameters.get("bias"))
        )
        rows = given.flatten(0, 1)
        codes = number_format.multiply(rows, weight=number_format.quantize(weight))
        floats = functional.linear(rows, weight)
        made = floats if bias is None else floats + bias
        expected = (codes - floats).square().sum() / made.square().sum()
        assert costs[name].error_ratio == pytest.approx(float(expected), rel=1e-3)
        peak = rows.abs().max() / rows.square().mean().sqrt()
        assert costs[name].input_peak_ratio == pytest.approx(float(peak), rel=1e-5)
    assert costs["model.layers.1.mlp.up_proj"].weight_peak_ratio > 5
    assert costs["model.layers.1.mlp.down_proj"].input_peak_ratio > 5


def test_a_block_costs_what_it_changes_alone(tmp_path):
    model = open_family(tmp_path)
    before = compute_logits(model, input_ids=IDS)
    found = {
        item.name: item.kl for item in measure_blocks(model, number_format=INT4, input_ids=IDS)
    }
    assert sorted(found) == sorted(BLOCKS)
    np.testing.assert_array_equal(compute_logits(model, input_ids=IDS), before)
    for block in BLOCKS[1:]:
        alone = open_family(tmp_path)
        others = [f"{item}*" for item in BLOCKS if item != block]
        described = {**INT4.describe(), "ignore": others, "embeddings": "float32"}
        quantize_in_place(alone, number_format=INT4, described=described)
        rounded = compute_logits(alone, input_ids=IDS)
        assert found[block] == pytest.approx(compare_logits([(before, rounded)]).mean_kl, rel=1e-3)


@pytest.mark.parametrize("name", ["Qwen2-MoE", "DeepSeek-V3", "Gemma 3", "Qwen3-Next"])
def test_every_family_has_costs(name, tmp_path):
    model = load_model(make_family(tmp_path / "model", name=name))
    blocks = measure_blocks(model, number_format=INT8, input_ids=IDS)
    prepare_for_qat(model, number_format=INT8)
    layers = measure_layers(model, batches=[BATCH])
    assert all(0 <= item.kl < 0.1 for item in blocks) and len(blocks) >= 3
    assert all(0 < item.error_ratio < 0.01 for item in layers)
    metrics = RoundingCosts(blocks, layers).metrics()
    assert list(metrics["costly_layers"]) == [item.name for item in layers[:3]]


def test_a_model_without_a_list_of_blocks_has_costs_by_layer():
    config = BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=2)
    model = BloomForCausalLM(config).eval()
    found = measure_blocks(model, number_format=INT8, input_ids=IDS)
    assert {item.name for item in found} >= {"lm_head", "transformer.h.1.mlp.dense_h_to_4h"}
