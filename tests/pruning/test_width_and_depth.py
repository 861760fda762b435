"""Leaving out layers and residual channels: the cut model answers as the masked one."""

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Glm4Config,
    Glm4ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
)

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.parity import compare_logits, rounding_tolerance
from limbeck.models.batch import Batch
from limbeck.models.logit_parity import compare_models, compute_logits
from limbeck.pruning.depth import bypass, cut_layers, measure_influence
from limbeck.pruning.shapes import keep_settings
from limbeck.pruning.width import (
    cut_stream,
    find_stream,
    mask_stream,
    measure_kept_norms,
    score_channels,
)

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,
    "head_dim": 8,
}
TIGHT = rounding_tolerance(width=60, depth=5)


def make_llama(**changes):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE | changes)).eval()


def make_qwen3():
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE, tie_word_embeddings=True)).eval()


def make_fused(config, build):
    torch.manual_seed(0)
    return build(config(**SHAPE, pad_token_id=0, tie_word_embeddings=False)).eval()


def make_batch():
    ids = torch.randint(60, (3, 9), generator=torch.Generator().manual_seed(1))
    tokens = torch.ones_like(ids, dtype=torch.bool)
    return Batch(input_ids=ids, labels=ids.clone(), record_ids=torch.arange(3), tokens=tokens)


MODELS = {
    "tied": lambda: make_llama(tie_word_embeddings=True),
    "untied": lambda: make_llama(tie_word_embeddings=False),
    "biased": lambda: make_llama(attention_bias=True, mlp_bias=True),
    "head norms": make_qwen3,
    "fused": lambda: make_fused(Phi3Config, Phi3ForCausalLM),
    "fused between norms": lambda: make_fused(Glm4Config, Glm4ForCausalLM),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_narrower_model_answers_as_the_masked_one(name):
    model, batch = MODELS[name](), make_batch()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    stream = find_stream(model)
    kept = sorted(score_channels(model, stream=stream, batches=[batch]).topk(16).indices.tolist())
    norms = measure_kept_norms(model, stream=stream, kept=kept, batches=[batch])
    assert set(norms) == set(stream.norms)
    assert all(0 < value < 1 for value in norms.values())
    mask_stream(model, stream=stream, kept=kept, kept_norms=norms)
    smaller = cut_stream(model, stream=stream, kept=kept)
    assert smaller.config.hidden_size == 16
    assert smaller.config.head_dim == 8
    found = compare_models(model, smaller, input_ids=batch.input_ids)
    found.check(TIGHT, fault="cut", advice="")


def test_channels_that_no_layer_reads_go_first():
    model, batch = make_llama(), make_batch()
    unread = [3, 7, 20]
    with torch.no_grad():
        for name in find_stream(model).columns:
            if "embed" not in name and "lm_head" not in name:
                model.get_parameter(name)[:, unread] = 0.0
    scores = score_channels(model, stream=find_stream(model), batches=[batch])
    assert sorted(scores.topk(3, largest=False).indices.tolist()) == unread


def test_scaled_embeddings_are_refused():
    model = Gemma2ForCausalLM(Gemma2Config(**SHAPE))
    with pytest.raises(CheckpointError, match="scales its embeddings by their width"):
        find_stream(model)


def test_layers_that_are_left_out_hand_on():
    model, batch = make_llama(), make_batch()
    with bypass(model, layers=[1, 3]):
        expected = compute_logits(model, input_ids=batch.input_ids)
    smaller = cut_layers(model, kept=[0, 2, 4])
    assert smaller.config.num_hidden_layers == 3
    found = compare_logits([(expected, compute_logits(smaller, input_ids=batch.input_ids))])
    found.check(TIGHT, fault="cut", advice="")


def test_settings_of_layers_go_with_them():
    kinds = ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"]
    config = Gemma2Config(**SHAPE, layer_types=kinds, sliding_window=3)
    torch.manual_seed(0)
    model, batch = Gemma2ForCausalLM(config).eval(), make_batch()
    with bypass(model, layers=[0]):
        expected = compute_logits(model, input_ids=batch.input_ids)
    smaller = cut_layers(model, kept=[1, 2, 3, 4])
    assert smaller.config.layer_types == kinds[1:]
    found = compare_logits([(expected, compute_logits(smaller, input_ids=batch.input_ids))])
    found.check(TIGHT, fault="cut", advice="")


@pytest.mark.parametrize(
    ("dense", "kept", "expected"), [([0, 2], (0, 1, 3), [0]), ([0, 1, 2, 3], (0, 3), [0, 1])]
)
def test_layers_without_experts_are_named_anew(dense, kept, expected):
    """Also where as many are named as there are layers, as if each had a setting of its own."""
    config = Qwen3MoeConfig(num_hidden_layers=4, mlp_only_layers=dense)
    keep_settings(config, layers=kept)
    assert config.mlp_only_layers == expected


def test_a_layer_that_does_nothing_has_no_influence():
    model, batch = make_llama(), make_batch()
    with torch.no_grad():
        for block in ("self_attn.o_proj", "mlp.down_proj"):
            model.model.layers[2].get_submodule(block).weight.zero_()
    influence = measure_influence(model, batches=[batch])
    assert influence.argmin() == 2
    assert influence[2] == pytest.approx(0, abs=1e-6)
