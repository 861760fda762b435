"""Tiny checkpoints, bundles and their tokenizer, as folders."""

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from limbeck.contracts.config import resolve
from limbeck.contracts.registry import FORMATS
from limbeck.data.corpus.config import TokenizerConfig
from limbeck.data.corpus.train_tokenizer import train_tokenizer
from limbeck.models.checkpoints import save_checkpoint
from limbeck.models.moe.configuration import LimbeckMoeConfig
from limbeck.models.moe.modeling import LimbeckMoeForCausalLM
from limbeck.quantization.qat import convert

QUESTIONS = [
    "高血压有哪些症状？",
    "What is it?",
    "头晕 dizzy 是哪个科室的问题，需要做什么检查？",
    "药",
]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "initializer_range": 0.25,
    "max_position_embeddings": 128,
}
KINDS = {
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": True}),
    "qwen3-untied": (Qwen3ForCausalLM, Qwen3Config, {"tie_word_embeddings": False}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"tie_word_embeddings": True}),
    "llama": (
        LlamaForCausalLM,
        LlamaConfig,
        {
            "attention_bias": True,
            "mlp_bias": True,
            "num_key_value_heads": 1,
            "rope_parameters": {
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
                "rope_theta": 10000.0,
            },
        },
    ),
    "mistral": (
        MistralForCausalLM,
        MistralConfig,
        {"sliding_window": None, "num_key_value_heads": 4, "tie_word_embeddings": False},
    ),
    "gemma3": (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        {
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 16,
            "query_pre_attn_scalar": 16,
        },
    ),
    "moe": (
        LimbeckMoeForCausalLM,
        LimbeckMoeConfig,
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
}


def make_tokenizer(folder):
    config = TokenizerConfig(min_count=1, num_merges=4)
    return train_tokenizer(QUESTIONS * 5, folder=folder, config=config)


def make_model(kind, tokenizer, **changes):
    torch.manual_seed(0)
    model_class, config_class, fields = KINDS[kind]
    sizes = {key: value for key, value in SIZES.items() if kind != "moe" or key in MOE_SIZES}
    config = config_class(
        **{**sizes, **fields, **changes},
        # Read back beside a Qwen2 config, transformers adds an end-of-text token of Qwen's own.
        vocab_size=len(tokenizer) + (kind == "qwen2"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = model_class(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.normal_(parameter, mean=0.0 if name.endswith("bias") else 1.0, std=0.3)
    return model


MOE_SIZES = SIZES.keys() - {"intermediate_size"}


def make_checkpoint(folder, kind="qwen3", number_format="float32", embeddings="int8", **changes):
    """A checkpoint folder; its model."""
    tokenizer = make_tokenizer(folder.with_name(folder.name + "-tokenizer"))
    model = make_model(kind, tokenizer, **changes)
    if number_format != "float32":
        found = resolve(FORMATS, number_format, what="format")
        model = convert(model, number_format=found(kind=number_format, embeddings=embeddings))
    save_checkpoint(model, tokenizer=tokenizer, folder=folder)
    return model
