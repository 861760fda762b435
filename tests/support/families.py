"""Tiny random checkpoints of published decoder families, each with its config's oddities."""

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from tests.support.published_checkpoints import PADDED_VOCAB, make_tokenizer

SIZES = {
    "vocab_size": PADDED_VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "tie_word_embeddings": False,
}
WINDOW = {"sliding_window": 16}
MIXED_LAYERS = {"layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LLAMA3_ROTARY = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 500000.0,
}
PARTIAL_ROTARY = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
LONG_ROTARY = {
    **PARTIAL_ROTARY,
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
    "long_factor": [1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 3.0, 4.0],
}
PARTIAL_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}
FAMILIES: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "Llama 3": ("llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3_ROTARY}),
    "Llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "Qwen2": ("qwen2", {"tie_word_embeddings": True, "head_dim": None}),
    "Qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "Qwen2-MoE": (
        "qwen2_moe",
        {**EXPERTS, "head_dim": None, "shared_expert_intermediate_size": 32},
    ),
    "Qwen3-MoE": ("qwen3_moe", EXPERTS),
    "Qwen3-Next": (
        "qwen3_next",
        {
            **EXPERTS,
            "layer_types": ["linear_attention", "full_attention"],
            "shared_expert_intermediate_size": 32,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
    ),
    "Mistral": ("mistral", WINDOW),
    "Mixtral": (
        "mixtral",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "OLMoE": ("olmoe", {"num_experts": 8, "num_experts_per_tok": 2, "head_dim": None}),
    "OLMo 2": ("olmo2", {"head_dim": None}),
    "DeepSeek-V3": (
        "deepseek_v3",
        {
            "num_key_value_heads": 4,
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 16,
            "head_dim": None,
        },
    ),
    "Gemma 2": (
        "gemma2",
        {
            **WINDOW,
            **MIXED_LAYERS,
            "tie_word_embeddings": True,
            "query_pre_attn_scalar": 16,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    "Gemma 3": (
        "gemma3_text",
        {**WINDOW, **MIXED_LAYERS, "tie_word_embeddings": True, "query_pre_attn_scalar": 16},
    ),
    "Phi-3": ("phi3", {"head_dim": None, "sliding_window": None}),
    "Phi-4 mini": (
        "phi3",
        {
            **PARTIAL_HEADS,
            "head_dim": None,
            "tie_word_embeddings": True,
            "original_max_position_embeddings": 64,
            "rope_parameters": LONG_ROTARY,
        },
    ),
    "GLM-4": (
        "glm4",
        {
            **PARTIAL_HEADS,
            "head_dim": 32,
            "attention_bias": True,
            "rope_parameters": PARTIAL_ROTARY,
        },
    ),
    "gpt-oss": (
        "gpt_oss",
        {**WINDOW, **MIXED_LAYERS, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "SmolLM3": (
        "smollm3",
        {"tie_word_embeddings": True, "no_rope_layers": [1, 0], "head_dim": None},
    ),
    "Granite": (
        "granite",
        {
            "head_dim": None,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.2,
            "logits_scaling": 8.0,
        },
    ),
    "GPT-2": ("gpt2", {"num_key_value_heads": None, "head_dim": None}),
}
"""Of each family its `model_type`, and what of its config differs from `SIZES`; None: left out."""


def make_family(folder: Path, *, name: str, **changes: object) -> Path:
    """The folder of a tiny random checkpoint of a family, with its tokenizer.

    `changes` are of its config; None leaves a field out.
    """
    model_type, oddities = FAMILIES[name]
    stated = {**SIZES, **oddities, **changes}
    fields = {key: value for key, value in stated.items() if value is not None}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**fields))
    # Norms and biases as training leaves them, not all alike.
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.to(torch.bfloat16).save_pretrained(folder)
    make_tokenizer(folder)
    return folder
