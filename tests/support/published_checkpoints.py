"""Tiny random checkpoints of published architectures, saved as their publishers save them."""

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from tests.support.medical_pack import medical_pack

PADDED_VOCAB = 576
"""More rows than tokens, as published models have."""
END = "<|im_end|>"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A byte-level BPE with a chat template, like those of the published families."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_train_tokenizer()),
        eos_token=END,
        pad_token="<|endoftext|>",
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return fast


@functools.cache
def _train_tokenizer() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(sorted(medical_pack().names), trainer)
    return tokenizer.to_str()


def _shape(**changes) -> dict:
    return {
        "vocab_size": PADDED_VOCAB,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 32,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "bos_token_id": None,
        "tie_word_embeddings": False,
    } | changes


def _qwen3_moe() -> PreTrainedModel:
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            **_shape(head_dim=16, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=8)
        )
    )


def _deepseek_v3() -> PreTrainedModel:
    return DeepseekV3ForCausalLM(
        DeepseekV3Config(
            **_shape(
                num_key_value_heads=2,
                n_routed_experts=8,
                num_experts_per_tok=2,
                n_group=2,
                topk_group=1,
                moe_intermediate_size=8,
                n_shared_experts=1,
                first_k_dense_replace=1,
                q_lora_rank=8,
                kv_lora_rank=8,
                qk_rope_head_dim=4,
                qk_nope_head_dim=4,
                v_head_dim=16,
            )
        )
    )


def _mixtral() -> PreTrainedModel:
    return MixtralForCausalLM(MixtralConfig(**_shape(num_local_experts=4, num_experts_per_tok=2)))


def _olmoe() -> PreTrainedModel:
    return OlmoeForCausalLM(
        OlmoeConfig(**_shape(num_key_value_heads=2, num_experts=8, num_experts_per_tok=2))
    )


def _qwen3() -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**_shape(head_dim=16, tie_word_embeddings=True)))


def _llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**_shape()))


TEACHERS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen3_moe": _qwen3_moe,
    "deepseek_v3": _deepseek_v3,
    "mixtral": _mixtral,
    "olmoe": _olmoe,
}
STUDENTS: dict[str, Callable[[], PreTrainedModel]] = {"qwen3": _qwen3, "llama": _llama}


def make_checkpoint(folder: Path, *, build: Callable[[], PreTrainedModel]) -> Path:
    """The folder of a fresh bfloat16 model in several shards, with its tokenizer."""
    torch.manual_seed(0)
    build().to(torch.bfloat16).save_pretrained(folder, max_shard_size="24KB")
    make_tokenizer(folder)
    return folder
