"""Codes stand for the model that they were made from, in every dense family."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, PhimoeConfig, PhimoeForCausalLM

from limbeck.contracts.errors import CheckpointError
from limbeck.models.adapters import LoraConfig, add_adapter
from limbeck.models.checkpoints import build_without_weights, load_model
from limbeck.quantization.formats.int8 import Int8
from limbeck.quantization.layers import embedding_factor, is_plain_linear
from limbeck.quantization.qat import convert, prepare_for_qat, restore_float
from limbeck.runtimes.onnx.runtime import OnnxRuntime
from tests.support.families import FAMILIES, make_family

INT8 = Int8(kind="int8")
DENSE = [name for name, (kind, _) in FAMILIES.items() if kind in OnnxRuntime.architectures]


@pytest.mark.parametrize("name", DENSE)
def test_eight_bits_predict_nearly_as_floats_do(name, tmp_path):
    """Gemma multiplies its embeddings when it looks them up, which a plain table would not."""
    model = load_model(make_family(tmp_path / "model", name=name))
    ids = torch.tensor([[5, 9, 11, 30, 7]])
    with torch.no_grad():
        floats = model(input_ids=ids).logits
        prepare_for_qat(model, number_format=INT8)
        trained = model(input_ids=ids).logits
        restore_float(model)
        assert torch.equal(model(input_ids=ids).logits, floats)
        stored = convert(model, number_format=INT8)(input_ids=ids).logits
    scale = float(floats.abs().max())
    assert (trained - floats).abs().max() < 0.1 * scale
    torch.testing.assert_close(stored, trained, rtol=0, atol=1e-4 * scale)


def test_an_embedding_that_computes_something_else_is_named():
    class Shifted(nn.Embedding):
        def forward(self, input):
            return super().forward(input) + 1

    assert embedding_factor(nn.Embedding(3, 2)) == 1.0
    with pytest.raises(CheckpointError, match="Shifted does more than look rows up"):
        embedding_factor(Shifted(3, 2))


def test_linear_layers_by_class_alone_stay_floats():
    """PhiMoE's router has the weights of a linear layer, and gives three tensors."""
    config = PhimoeConfig(
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=4,
        vocab_size=64,
    )
    model = PhimoeForCausalLM(config).eval()
    assert not is_plain_linear(type(model.model.layers[0].mlp.router))
    add_adapter(model, config=LoraConfig(rank=2))
    prepare_for_qat(model, number_format=INT8)
    with torch.no_grad():
        assert model(input_ids=torch.tensor([[5, 9, 11]])).logits.isfinite().all()


def test_a_model_of_other_layers_is_refused():
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=32)
    with pytest.raises(CheckpointError, match="no linear layers but its head"):
        prepare_for_qat(build_without_weights(config), number_format=INT8)
