"""The shapes of the decoders that recipes describe are those of their module trees."""

import pytest
from transformers import Gemma2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from limbeck.models.decoder_sizes import read_sizes
from limbeck.models.moe.configuration import LimbeckMoeConfig
from limbeck.sizing.decoders import list_decoder_parameters
from limbeck.sizing.module_tree import build_parameters
from limbeck.sizing.parameters import size_model

SIZES = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
EXPERTS = {"num_experts": 10, "num_experts_per_tok": 3, "moe_intermediate_size": 16}


@pytest.mark.parametrize(
    "config",
    [
        Qwen3Config(**SIZES, intermediate_size=40, tie_word_embeddings=True),
        Qwen3Config(**SIZES, intermediate_size=40, tie_word_embeddings=False),
        Qwen3Config(**SIZES, intermediate_size=40, attention_bias=True),
        LimbeckMoeConfig(**SIZES, **EXPERTS),
        LimbeckMoeConfig(**SIZES, **EXPERTS, tie_word_embeddings=False, n_shared_experts=2),
        LimbeckMoeConfig(**SIZES, **EXPERTS, fusion="attention", fusion_heads=2, fusion_rank=5),
        LimbeckMoeConfig(**SIZES, **EXPERTS, fusion="full_attention", scoring_func="sigmoid"),
    ],
    ids=repr,
)
def test_shapes_are_those_of_the_module_tree(config):
    built = build_parameters(config)
    listed = list_decoder_parameters(config)
    if config.attention_bias:
        assert listed is None
    else:
        assert listed == built


@pytest.mark.parametrize("kind", [LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config])
@pytest.mark.parametrize("tied", [True, False])
def test_shapes_of_a_folder_are_those_of_its_module_tree(kind, tied, tmp_path):
    sizes = SIZES | {"hidden_size": 48}  # Qwen2's heads are always a share of the width
    window = {"sliding_window": None} if kind is MistralConfig else {}
    config = kind(**sizes, **window, intermediate_size=40, tie_word_embeddings=tied)
    config.save_pretrained(tmp_path)
    found = read_sizes(tmp_path)
    assert list_decoder_parameters(found) == build_parameters(config)
    assert size_model(found, context_tokens=32) == size_model(config, context_tokens=32)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZES, attention_bias=True),
        LlamaConfig(**SIZES, mlp_bias=True),
        LlamaConfig(**SIZES, hidden_act="gelu"),
        LlamaConfig(**SIZES, rope_parameters=LINEAR),
        MistralConfig(**SIZES, sliding_window=16),
        Gemma2Config(**SIZES),
    ],
    ids=lambda config: config.model_type,
)
def test_what_only_some_runtimes_compute_is_left_to_transformers(config, tmp_path):
    config.save_pretrained(tmp_path)
    assert read_sizes(tmp_path) is None


def test_a_damaged_config_is_left_to_transformers(tmp_path):
    assert read_sizes(tmp_path) is None
    for text in ("{", "[]", '{"model_type": "llama"}', '{"model_type": "qwen3", "head_dim": "x"}'):
        (tmp_path / "config.json").write_text(text)
        assert read_sizes(tmp_path) is None


def test_other_architectures_are_built():
    assert list_decoder_parameters(LlamaConfig(**SIZES)) is None
