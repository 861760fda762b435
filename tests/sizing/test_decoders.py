"""The shapes of the decoders that recipes describe are those of their module trees."""

import pytest
from transformers import LlamaConfig, Qwen3Config

from limbeck.models.moe.configuration import LimbeckMoeConfig
from limbeck.sizing.decoders import list_decoder_parameters
from limbeck.sizing.module_tree import build_parameters

SIZES = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
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


def test_other_architectures_are_built():
    assert list_decoder_parameters(LlamaConfig(**SIZES)) is None
