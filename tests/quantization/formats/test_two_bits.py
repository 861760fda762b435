"""INT2 and ternary weights: four codes to a byte, trained, stored, and in bundles of ONNX."""

import json

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from pydantic import ValidationError

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.tokenizers import load_tokenizer
from limbeck.quantization.formats.base import find_quantized
from limbeck.quantization.formats.two_bits import Int2, Ternary
from limbeck.quantization.layers import QuantizedEmbedding, QuantizedLinear, set_rounded_ratio
from limbeck.quantization.qat import convert, find_rounded_ratio, prepare_for_qat, restore_float
from limbeck.runtimes.onnx.runtime import OnnxRuntime
from limbeck.runtimes.transformers import TransformersRuntime
from tests.support.bundle_predictions import compare_bundle
from tests.support.families import make_family

WIDTHS = (1, 63, 64, 200, 256, 300)
INT2 = Int2(kind="int2")
TERNARY = Ternary(kind="ternary")
LEAST_SQUARES = Ternary(kind="ternary", scale="least_squares")
FORMATS = (INT2, TERNARY, LEAST_SQUARES, Ternary(kind="ternary", block_size=32))


def round_trip(number_format, weight):
    return number_format.dequantize(number_format.quantize(weight))


def relative_error(number_format, weight):
    return float(
        (round_trip(number_format, weight) - weight).square().sum() / weight.square().sum()
    )


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("number_format", FORMATS, ids=str)
def test_a_matrix_is_four_codes_to_a_byte_and_float16_scales(number_format, columns):
    torch.manual_seed(0)
    weight = torch.randn(6, columns)
    weight[2] = 0
    stored = number_format.quantize(weight)
    num_blocks = -(-columns // number_format.block)
    assert (stored.codes.dtype, stored.scale.dtype) == (torch.uint8, torch.float16)
    assert stored.codes.shape == (6, num_blocks * number_format.block // 4)
    assert stored.codes.shape[1] == number_format.num_codes(columns)
    assert stored.scale.shape == (6, num_blocks)
    num_bits = 8 * stored.codes.numel() + 16 * stored.scale.numel()
    assert number_format.num_bits(rows=6, columns=columns) == num_bits
    found = number_format.dequantize(stored)
    assert found.shape == weight.shape and not found[2].any()
    assert torch.equal(number_format.fake(weight), found)


def test_ternary_weights_are_those_of_bitnet():
    torch.manual_seed(0)
    weight = torch.randn(5, 512)
    for place, found in enumerate(round_trip(TERNARY, weight).split(256, dim=-1)):
        block = weight[:, place * 256 : place * 256 + 256]
        scale = block.abs().mean(dim=-1, keepdim=True).half().float()
        assert torch.equal(found, (block / scale).round().clamp(-1, 1) * scale)


def test_what_fills_a_short_block_up_does_not_count_for_its_mean():
    torch.manual_seed(0)
    weight = torch.randn(3, 300)
    assert torch.equal(round_trip(TERNARY, weight)[:, 256:], round_trip(TERNARY, weight[:, 256:]))


def test_errors_of_normally_distributed_weights_are_those_of_theory():
    """Of ternary levels: a mean squared error of 0.263 with the mean, 0.190 at best."""
    torch.manual_seed(0)
    weight = torch.randn(100, 2560)
    assert relative_error(TERNARY, weight) == pytest.approx(0.263, abs=0.004)
    assert relative_error(LEAST_SQUARES, weight) == pytest.approx(0.190, abs=0.004)
    assert relative_error(INT2, weight) < 0.14


@pytest.mark.parametrize("number_format", [INT2, LEAST_SQUARES], ids=str)
def test_numbers_on_the_grid_are_kept_exactly(number_format):
    torch.manual_seed(0)
    once = round_trip(number_format, torch.randn(8, 512))
    assert torch.equal(round_trip(number_format, once), once)


@pytest.mark.parametrize("kind", [Kind.TQ2_0, Kind.TQ1_0])
def test_blocks_of_256_are_those_of_llama_cpp(kind):
    """Its own quantiser keeps every number to the bit."""
    torch.manual_seed(0)
    weight = torch.randn(4, 768) * torch.logspace(-8, 2, 4)[:, None]
    weight[1, :256] = 0
    ours = round_trip(TERNARY, weight).numpy()
    assert np.array_equal(gguf.dequantize(gguf.quantize(ours, kind), kind), ours)


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("number_format", [INT2, TERNARY], ids=str)
def test_training_computes_what_is_stored_and_gradients_pass(number_format, columns):
    torch.manual_seed(0)
    x = torch.randn(7, columns, requires_grad=True)
    weight = torch.randn(11, columns, requires_grad=True)
    trained = number_format.fake_multiply(x, weight=weight)
    stored = number_format.multiply(x.detach(), weight=number_format.quantize(weight))
    torch.testing.assert_close(trained.detach(), stored, rtol=1e-5, atol=1e-5)
    trained.square().sum().backward()
    assert weight.grad is not None and weight.grad.abs().min() > 0


def test_rounding_sets_in_over_the_first_share_of_training():
    assert [find_rounded_ratio(step / 4, annealing_ratio=0.5) for step in range(4)] == [
        0,
        0.5,
        1,
        1,
    ]
    assert find_rounded_ratio(0.0, annealing_ratio=0.0) == 1


@pytest.mark.parametrize("number_format", [INT2, TERNARY], ids=str)
def test_a_model_in_training_rounds_by_the_share_that_is_set(number_format, tmp_path):
    model = load_model(make_family(tmp_path, name="Qwen3"))
    ids = torch.tensor([[5, 9, 11, 30, 7]])
    floats = model(input_ids=ids).logits
    prepare_for_qat(model, number_format=number_format)
    whole = model(input_ids=ids).logits
    model.train()
    set_rounded_ratio(model, 0.0)
    assert torch.equal(model(input_ids=ids).logits, floats)
    set_rounded_ratio(model, 0.5)
    half = model(input_ids=ids).logits
    assert not torch.equal(half, floats) and not torch.equal(half, whole)
    half.square().sum().backward()
    assert all(item.grad is not None for item in model.parameters())
    # What is measured or stored is rounded wholly, however far training has come.
    assert torch.equal(model.eval()(input_ids=ids).logits, whole)
    restore_float(model)
    assert torch.equal(model(input_ids=ids).logits, floats)


def make_checkpoint(folder, number_format, *, name):
    published = make_family(folder / "float", name=name)
    model = convert(load_model(published), number_format=number_format)
    save_checkpoint(model, tokenizer=load_tokenizer(published), folder=folder / "stored")
    return folder / "stored", model


@pytest.mark.parametrize(
    ("name", "number_format"),
    [
        ("Mistral", Int2(kind="int2", block_size=32, embeddings="float32")),
        ("Qwen3", Int2(kind="int2", embeddings="int8")),
        ("Gemma 3", TERNARY),
        ("Qwen3", Ternary(kind="ternary", block_size=32, embeddings="int8")),
    ],
    ids=str,
)
def test_a_checkpoint_is_read_again_and_its_bundle_predicts_the_same(name, number_format, tmp_path):
    folder, made = make_checkpoint(tmp_path, number_format, name=name)
    reference = TransformersRuntime().open_model(folder, num_threads=1)
    ids = torch.tensor([[5, 9, 11, 30, 7]])
    assert torch.equal(reference.model(input_ids=ids).logits, made(input_ids=ids).logits)
    kinds = {
        kind: {item.number_format.kind for item in reference.model.modules() if type(item) is kind}
        for kind in (QuantizedLinear, QuantizedEmbedding)
    }
    assert number_format.kind in kinds[QuantizedLinear]
    assert kinds[QuantizedEmbedding] == {number_format.embeddings} - {"float32"}
    bundle = OnnxRuntime().write(folder, tmp_path / "bundle")
    assert bundle.format == number_format.kind
    assert bundle.parameters == reference.size().parameters
    found = compare_bundle(tmp_path / "bundle", reference=reference)
    assert found.argmax_agreement_ratio > 0.95
    assert found.mean_kl < 1e-3


@pytest.mark.parametrize(
    ("changes", "named"), [({"block_size": 16}, "block_size is 16"), ({"scale": "max"}, "scale is")]
)
def test_a_wrong_description_is_named(changes, named):
    with pytest.raises(CheckpointError, match=named):
        find_quantized({"quantization_config": TERNARY.describe() | changes})
    with pytest.raises(ValidationError):
        Ternary(kind="ternary", **changes)


@pytest.mark.parametrize("number_format", FORMATS, ids=str)
def test_the_description_is_read_again(number_format):
    described = json.loads(json.dumps(number_format.describe()))
    assert find_quantized({"quantization_config": described}) == number_format
