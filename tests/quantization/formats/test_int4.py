"""INT4: four-bit codes in blocks, with a step of least squared error, trained and in bundles."""

import json

import pytest
import torch
from pydantic import ValidationError

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import load_model, save_checkpoint
from limbeck.models.tokenizers import load_tokenizer
from limbeck.quantization.formats import low_bits
from limbeck.quantization.formats.base import find_quantized
from limbeck.quantization.formats.int4 import METHOD, Int4
from limbeck.quantization.layers import QuantizedEmbedding, QuantizedLinear
from limbeck.quantization.qat import convert, prepare_for_qat
from limbeck.runtimes.onnx.runtime import OnnxRuntime
from limbeck.runtimes.transformers import TransformersRuntime
from tests.support.bundle_predictions import compare_bundle
from tests.support.families import make_family

WIDTHS = (1, 5, 31, 32, 33, 50, 96, 200)
INT4 = Int4(kind="int4")


@pytest.mark.parametrize("columns", WIDTHS)
def test_what_codes_stand_for_is_near_the_weights(columns):
    torch.manual_seed(0)
    weight = torch.randn(6, columns)
    weight[2] = 0
    stored = INT4.quantize(weight)
    num_blocks = -(-columns // 32)
    assert stored.codes.dtype == torch.uint8
    assert stored.codes.shape == (6, INT4.num_codes(columns)) == (6, num_blocks * 16)
    assert stored.scale.shape == (6, num_blocks)
    found = INT4.dequantize(stored)
    assert found.shape == weight.shape and not found[2].any()
    # Half a step of the block, but where the farthest number is cut off for the sake of all others.
    for place, part in enumerate(weight.split(32, dim=-1)):
        error = (found[:, place * 32 : place * 32 + part.shape[-1]] - part).abs()
        plain = (part.abs().amax(dim=-1) / 8)[:, None]
        assert (error.square().sum(dim=-1) <= (plain**2 / 3 * 32).sum(dim=-1) + 1e-6).all()
    assert torch.equal(INT4.fake(weight), found)


def test_the_step_is_the_best_of_those_tried():
    torch.manual_seed(0)
    weight = torch.randn(50, 32)
    found = (INT4.dequantize(INT4.quantize(weight)) - weight).square().sum(dim=-1)
    farthest = weight.gather(-1, weight.abs().argmax(dim=-1, keepdim=True))
    for part in low_bits.STEPS[4]:
        step = farthest / -8 * part
        tried = (torch.round(weight / step).clamp(-8, 7) * step - weight).square().sum(dim=-1)
        assert (found <= tried + 1e-6).all()


def test_numbers_on_the_grid_are_kept_exactly():
    codes = torch.arange(-8, 8).repeat(3, 2).float()
    for step in (0.25, -0.5, 2.0):
        assert torch.equal(INT4.dequantize(INT4.quantize(codes * step)), codes * step)


def test_gradients_pass_as_if_nothing_were_rounded():
    weight = torch.randn(4, 40, requires_grad=True)
    x = torch.randn(3, 40, requires_grad=True)
    (INT4.fake_multiply(x, weight=weight) ** 2).sum().backward()
    assert weight.grad is not None and x.grad is not None
    assert weight.grad.abs().min() > 0 and x.grad.abs().min() > 0


@pytest.mark.parametrize("columns", WIDTHS)
def test_training_computes_what_is_stored(columns):
    torch.manual_seed(0)
    x, weight = torch.randn(7, columns), torch.randn(11, columns)
    stored = INT4.multiply(x, weight=INT4.quantize(weight))
    torch.testing.assert_close(INT4.fake_multiply(x, weight=weight), stored, rtol=1e-5, atol=1e-5)


def make_checkpoint(folder, *, name, **settings):
    int4 = Int4(kind="int4", **settings)
    published = make_family(folder / "float", name=name)
    model = load_model(published)
    prepare_for_qat(model, number_format=int4)
    ids = torch.tensor([[5, 9, 11, 30, 7]])
    with torch.no_grad():
        trained = model(input_ids=ids).logits
        converted = convert(model, number_format=int4)
        stored = converted(input_ids=ids).logits
    torch.testing.assert_close(stored, trained, rtol=1e-3, atol=1e-4 * float(trained.abs().max()))
    save_checkpoint(converted, tokenizer=load_tokenizer(published), folder=folder / "int4")
    return folder / "int4"


@pytest.mark.parametrize("embeddings", ["int8", "int4", "float32"])
@pytest.mark.parametrize("name", ["Mistral", "Qwen3", "Gemma 3"])
def test_a_checkpoint_is_read_again_and_its_bundle_predicts_the_same(name, embeddings, tmp_path):
    """Tied and untied tables, in codes of four bits, of eight, and as floats."""
    folder = make_checkpoint(tmp_path, name=name, embeddings=embeddings, block_size=16)
    reference = TransformersRuntime().open_model(folder, num_threads=1)
    layers = [item for item in reference.model.modules() if isinstance(item, QuantizedLinear)]
    tables = [item for item in reference.model.modules() if isinstance(item, QuantizedEmbedding)]
    assert {item.number_format.kind for item in layers} >= {"int4"}
    assert {item.number_format.kind for item in tables} == {embeddings} - {"float32"}
    bundle = OnnxRuntime().write(folder, tmp_path / "bundle")
    assert bundle.format == "int4" and bundle.parameters == reference.size().parameters
    found = compare_bundle(tmp_path / "bundle", reference=reference)
    assert found.argmax_agreement_ratio > 0.95
    assert found.mean_kl < 1e-3


def test_the_bytes_are_those_that_a_plan_counts(tmp_path):
    folder = make_checkpoint(tmp_path, name="Mistral", embeddings="int4")
    reference = TransformersRuntime().open_model(folder, num_threads=1).model
    for module in reference.modules():
        if isinstance(module, QuantizedLinear):
            held = module.weight.numel() + 4 * module.weight_scale.numel()
            rows, columns = module.out_features, module.in_features
            assert INT4.num_bits(rows=rows, columns=columns) == 8 * held


@pytest.mark.parametrize(
    ("changes", "named"), [({"block_size": 7}, "block_size is 7"), ({"embeddings": "int3"}, "int3")]
)
def test_a_wrong_description_is_named(changes, named):
    described = INT4.describe() | changes
    with pytest.raises(CheckpointError, match=named):
        find_quantized({"quantization_config": described})
    with pytest.raises(ValidationError):
        Int4(kind="int4", **changes)


def test_the_description_is_read_again():
    for number_format in (INT4, Int4(kind="int4", block_size=128, embeddings="float32")):
        described = json.loads(json.dumps(number_format.describe()))
        assert described["quant_method"] == METHOD
        assert find_quantized({"quantization_config": described}) == number_format
