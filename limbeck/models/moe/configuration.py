"""Sizes of the mixture-of-experts decoder, as transformers stores them."""

from typing import no_type_check

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.modeling_rope_utils import RopeParameters


@no_type_check  # `strict` checks every field itself, and wants to make the constructor
@strict
class LimbeckMoeConfig(PreTrainedConfig):
    """Sizes of the mixture-of-experts decoder; names are those of transformers."""

    model_type = "limbeck_moe"
    keys_to_ignore_at_inference = ("past_key_values", "routing")

    vocab_size: int = 1024
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    num_experts: int = 128
    num_experts_per_tok: int = 2
    moe_intermediate_size: int = 48
    scoring_func: str = "softmax"
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    n_group: int = 1
    topk_group: int = 1
    n_shared_experts: int = 0
    fusion: str = "weighted_sum"
    fusion_heads: int = 4
    fusion_rank: int = 16
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    use_cache: bool = True
    tie_word_embeddings: bool = True
    rope_parameters: RopeParameters | dict | None = None
    attention_bias: bool = False
    attention_dropout: float = 0.0
    sliding_window: int | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None


AutoConfig.register("limbeck_moe", LimbeckMoeConfig)
