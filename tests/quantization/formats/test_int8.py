"""INT8: what training sees is what runs, what runs is what is stored."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from limbeck.contracts.errors import CheckpointError
from limbeck.models.moe.configuration import LimbeckMoeConfig
from limbeck.models.moe.modeling import LimbeckMoeForCausalLM
from limbeck.quantization.formats.base import find_quantized
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.formats.rounding import (
    LEVELS,
    absmax_scales,
    multiply_in_float32,
    multiply_integers,
)
from limbeck.quantization.formats.tensors import QuantizedTensor
from limbeck.quantization.layers import QuantizedEmbedding, QuantizedLinear
from limbeck.quantization.qat import convert, prepare_for_qat
from limbeck.quantization.storage import load_quantized, save_quantized

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
}
IDS = torch.arange(22).view(2, 11)


def qwen3(**changes):
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**{**SIZES, "tie_word_embeddings": True, **changes})).eval()


def llama():
    torch.manual_seed(0)
    sizes = {**SIZES, "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}
    model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


def moe():
    torch.manual_seed(0)
    sizes = {key: value for key, value in SIZES.items() if key != "intermediate_size"}
    return LimbeckMoeForCausalLM(
        LimbeckMoeConfig(**sizes, num_experts=4, moe_intermediate_size=16)
    ).eval()


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


INT8 = Int8(kind="int8", block_size="row")
BLOCK_SIZES = ("row", 16, 32, 128)


def load(folder):
    config = json.loads((folder / "config.json").read_text())
    number_format = find_quantized(config)
    assert number_format is not None
    return load_quantized(folder, number_format=number_format)


@pytest.mark.parametrize("make", [qwen3, llama, moe])
@pytest.mark.parametrize("embeddings", ["int8", "float32"])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_converted_equals_fake_quantized_bit_for_bit(make, embeddings, block_size):
    model = make()
    plain = logits(model)
    int8 = Int8(kind="int8", embeddings=embeddings, block_size=block_size)
    prepare_for_qat(model, number_format=int8)
    fake = logits(model)
    converted = logits(convert(model, number_format=int8))
    assert torch.equal(fake, converted)
    assert 0 < (fake - plain).abs().max() < 0.2 * plain.abs().max()


def test_wider_than_float32_adds_exactly_stays_within_its_rounding():
    torch.manual_seed(0)
    x, weight = torch.randn(5, 3000), torch.randn(7, 3000)
    fake = INT8.fake_multiply(x, weight=weight)
    layer = QuantizedLinear(INT8.quantize(weight), number_format=INT8, bias=None)
    torch.testing.assert_close(fake, layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("terms", [1, 3, 1041, 2100])
@pytest.mark.parametrize("multiply", [multiply_integers, multiply_in_float32])
def test_integer_products_are_exact_on_every_path(terms, multiply):
    left = torch.full((2, terms), 127, dtype=torch.int8)
    right = torch.full((3, terms), -127, dtype=torch.int8)
    expected = torch.full((2, 3), -127.0 * 127.0 * terms)
    assert torch.equal(multiply(left, right), expected)


@pytest.mark.parametrize("make", [qwen3, llama, moe])
@pytest.mark.parametrize("embeddings", ["int8", "float32"])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_save_then_load_gives_the_same_logits(make, embeddings, block_size, tmp_path):
    int8 = Int8(kind="int8", embeddings=embeddings, block_size=block_size)
    model = convert(make(), number_format=int8)
    save_quantized(model, tmp_path)
    assert find_quantized(json.loads((tmp_path / "config.json").read_text())) == int8
    loaded = load(tmp_path)
    assert torch.equal(logits(model), logits(loaded))
    assert not loaded.training
    assert Int8.matches(json.loads((tmp_path / "config.json").read_text()))


def test_tied_integers_are_stored_and_held_once(tmp_path):
    model = convert(qwen3(), number_format=INT8)
    save_quantized(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert not any(name.startswith("lm_head") for name in tensors)
    assert tensors["model.embed_tokens.weight"].dtype == torch.int8
    for held in (model, load(tmp_path)):
        assert isinstance(held.get_input_embeddings(), QuantizedEmbedding)
        assert held.get_input_embeddings().weight is held.get_output_embeddings().weight


def test_the_file_holds_about_one_byte_a_parameter(tmp_path):
    model = qwen3(hidden_size=128, intermediate_size=256, vocab_size=512)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    save_quantized(convert(model, number_format=Int8(kind="int8")), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    num_integers = sum(tensor.numel() for tensor in tensors.values() if tensor.dtype == torch.int8)
    assert num_integers > 0.99 * num_parameters
    # Of 32 weights, a float32 scale takes an eighth of what they take.
    assert (tmp_path / "model.safetensors").stat().st_size < 1.24 * num_parameters
    assert tensors["model.layers.0.mlp.up_proj.weight_scale"].shape == (256, 4)


@pytest.mark.parametrize("block_size", ["row", 16])
def test_stock_transformers_reads_float_embeddings_with_int8_layers(block_size, tmp_path):
    pytest.importorskip("compressed_tensors")
    int8 = Int8(kind="int8", embeddings="float32", block_size=block_size)
    model = convert(qwen3(), number_format=int8)
    save_quantized(model, tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path)
    layer = model.model.layers[1].mlp.up_proj
    # It unpacks weights at the first call; activations it rounds to a slightly other step.
    difference = (logits(stock) - logits(model)).abs().max()
    found = stock.model.layers[1].mlp.up_proj.weight
    stored = QuantizedTensor(layer.weight, layer.weight_scale, layer.in_features)
    assert torch.equal(found, int8.dequantize(stored))
    assert difference < 0.2 * logits(model).abs().max()


def test_preparing_keeps_names_parameters_and_ties():
    model = qwen3()
    before = dict(model.named_parameters())
    keys = list(model.state_dict())
    prepare_for_qat(model, number_format=INT8)
    assert list(model.state_dict()) == keys
    assert all(before[name] is parameter for name, parameter in model.named_parameters())
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_rounding_passes_gradients_straight_through():
    x = torch.randn(3, 8, requires_grad=True)
    (INT8.fake(x) * torch.arange(8.0)).sum().backward()
    torch.testing.assert_close(x.grad, torch.arange(8.0).expand(3, 8))


def test_every_parameter_of_a_prepared_model_learns():
    model = qwen3()
    prepare_for_qat(model, number_format=INT8)
    model(IDS, labels=IDS).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_gradients_are_those_of_the_rounded_product():
    x = torch.randn(4, 8, requires_grad=True)
    weight = torch.randn(5, 8, requires_grad=True)
    INT8.fake_multiply(x, weight=weight).sum().backward()
    found = x.grad.clone(), weight.grad.clone()
    x.grad = weight.grad = None
    torch.nn.functional.linear(INT8.fake(x), INT8.fake(weight)).sum().backward()
    torch.testing.assert_close(found, (x.grad, weight.grad))


def test_rows_of_zeros_stay_zeros():
    assert torch.equal(INT8.fake(torch.zeros(2, 4)), torch.zeros(2, 4))
    layer = QuantizedLinear(INT8.quantize(torch.zeros(3, 4)), number_format=INT8, bias=None)
    assert torch.equal(layer(torch.zeros(2, 4)), torch.zeros(2, 3))
    assert torch.isfinite(layer(torch.randn(2, 4))).all()


def test_the_largest_of_each_row_is_kept_exactly_within_half_a_step():
    x = torch.randn(50, 16)
    error = (INT8.fake(x) - x).abs()
    assert (error <= absmax_scales(x) * 0.5001).all()
    assert (INT8.fake(x).abs().amax(-1) / absmax_scales(x).squeeze()).allclose(
        torch.tensor(float(LEVELS))
    )


def test_quantizing_twice_is_refused():
    model = convert(qwen3(), number_format=INT8)
    with pytest.raises(CheckpointError, match="already"):
        prepare_for_qat(model, number_format=INT8)


def damage(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


EMBEDDING = "model.embed_tokens.weight"
DAMAGES = {
    "missing": (lambda tensors: tensors.pop(EMBEDDING), "missing.*embed_tokens"),
    "extra": (lambda tensors: tensors.update(odd=torch.zeros(1)), "unexpected.*odd"),
    "shape": (
        lambda tensors: tensors.update({EMBEDDING: torch.zeros(3, 32, dtype=torch.int8)}),
        "embed_tokens.*expected",
    ),
    "dtype": (
        lambda tensors: tensors.update({EMBEDDING: torch.zeros(61, 32)}),
        "embed_tokens.*float32.*int8",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_wrong_tensors_are_named(kind, tmp_path):
    save_quantized(convert(qwen3(), number_format=INT8), tmp_path)
    change, message = DAMAGES[kind]
    damage(tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 3, 200, 0.5, 0.95])
def test_truncated_weights_are_named(keep, tmp_path):
    save_quantized(convert(qwen3(), number_format=INT8), tmp_path)
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load(tmp_path)


def test_configs_that_do_not_fit_are_named(tmp_path):
    save_quantized(convert(qwen3(), number_format=INT8), tmp_path)
    path = tmp_path / "config.json"
    good = json.loads(path.read_text())
    for change, message in [
        ({"hidden_size": 64}, "expected"),
        ({"num_hidden_layers": 3}, "config.json"),
        ({"tie_word_embeddings": False}, "missing"),
        ({"model_type": "nonsense"}, "config.json"),
        ({"hidden_size": "wide"}, "config.json"),
        ({"num_attention_heads": 0}, "config.json|expected"),
    ]:
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path)
    good["quantization_config"]["embeddings"] = "int9"
    path.write_text(json.dumps(good))
    with pytest.raises(CheckpointError, match="int9"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ({}, False),
        ({"quant_method": "gptq"}, False),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, False),
        ({"quant_method": "limbeck-int8"}, True),
    ],
)
def test_other_formats_are_not_taken_for_int8(described, expected):
    assert Int8.matches({"quantization_config": described}) is expected


def described(weights, inputs, **changes):
    """What compressed-tensors writes into a config.json, as tools of others do."""
    integers = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**integers, "dynamic": False, **weights},
        "input_activations": {**integers, "dynamic": True, **inputs},
    }
    content = {"quant_method": "compressed-tensors", "format": "int-quantized"}
    return {"quantization_config": {**content, "config_groups": {"group_0": group}, **changes}}


IN_ROWS = ({"strategy": "channel"}, {"strategy": "token"})


def in_blocks(size):
    return ({"strategy": "group", "group_size": size},) * 2


@pytest.mark.parametrize(
    ("schemes", "block_size"), [(IN_ROWS, "row"), (in_blocks(16), 16), (in_blocks(128), 128)]
)
def test_folders_of_others_are_read_as_they_are_described(schemes, block_size):
    found = find_quantized(described(*schemes))
    assert found == Int8(kind="int8", block_size=block_size, embeddings="float32")


OTHERS = {
    "a block no runtime has": in_blocks(48),
    "blocks of two sizes": (*in_blocks(32)[:1], *in_blocks(64)[:1]),
    "blocks of weights only": (*in_blocks(32)[:1], *IN_ROWS[1:]),
    "a static step": (*IN_ROWS[:1], {"strategy": "group", "group_size": 32, "dynamic": False}),
    "four bits": ({**in_blocks(32)[0], "num_bits": 4}, *in_blocks(32)[1:]),
    "floats of eight bits": tuple({**item, "type": "float"} for item in in_blocks(32)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_schemes_of_others_are_left_to_their_own_readers(kind):
    assert find_quantized(described(*OTHERS[kind])) is None


@pytest.mark.parametrize("size", [48, 0, None, "32"])
def test_a_wrong_block_of_ours_is_named(size):
    config = described(*in_blocks(size), quant_method="limbeck-int8", embeddings="int8")
    with pytest.raises(CheckpointError, match="blocks of 16, 32"):
        find_quantized(config)
