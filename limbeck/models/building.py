"""Fresh models by description: the mixture-of-experts teacher and the dense student.

Left out: reading weights that exist (`loading.py`).
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from limbeck.contracts.config import Config
from limbeck.models.moe import LimbeckMoeConfig, LimbeckMoeForCausalLM
from limbeck.models.vocabulary import Vocabulary

Positive = Annotated[int, Field(gt=0)]
Multiple4 = Annotated[int, Field(gt=0, multiple_of=4)]
"""Widths of grouped products: rows must start at multiples of 16 bytes."""


class Decoder(Config):
    """What the dense and the sparse decoder have in common."""

    hidden: Multiple4
    """Width of the residual stream."""
    num_layers: Positive
    num_heads: Positive
    """Query heads."""
    num_key_value_heads: Positive
    """Key-value heads; each serves num_heads / num_key_value_heads query heads."""
    head_width: Annotated[int, Field(gt=0, multiple_of=2)]
    """Width of one attention head."""
    max_tokens: Positive = 2048
    """Longest sequence, in tokens."""
    initializer_range: Annotated[float, Field(gt=0)] = 0.02
    """Standard deviation of fresh weights."""
    rope_theta: Annotated[float, Field(gt=0)] = 10000.0
    """Base wavelength of the rotary embedding, in tokens."""

    def _shared(self, vocabulary: Vocabulary) -> dict:
        return {
            "vocab_size": len(vocabulary),
            "hidden_size": self.hidden,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_width,
            "max_position_embeddings": self.max_tokens,
            "initializer_range": self.initializer_range,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "tie_word_embeddings": True,
            "pad_token_id": vocabulary.pad_token_id,
            "bos_token_id": vocabulary.bos_token_id,
            "eos_token_id": vocabulary.eos_token_id,
        }


class MoeModel(Decoder):
    """A mixture-of-experts decoder (`limbeck_moe`)."""

    kind: Literal["moe"]
    num_experts: Positive = 128
    experts_per_token: Positive = 2
    expert_width: Multiple4
    """Feed-forward channels of one expert."""
    normalize_gate: Literal["picked", "none"] = "picked"
    """Whether the picked experts' weights are scaled to sum to one."""

    def describe(self, vocabulary: Vocabulary) -> PreTrainedConfig:
        """The transformers config, without building anything."""
        return LimbeckMoeConfig(
            **self._shared(vocabulary),
            num_experts=self.num_experts,
            num_experts_per_tok=self.experts_per_token,
            moe_intermediate_size=self.expert_width,
            normalize_gate=self.normalize_gate,
        )

    def build(self, *, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
        """A model with fresh weights, the same for the same seed."""
        torch.manual_seed(seed)
        return LimbeckMoeForCausalLM(self.describe(Vocabulary.of(tokenizer)))  # pyright: ignore[reportArgumentType]


class DenseModel(Decoder):
    """A dense decoder in a standard architecture (`Qwen3ForCausalLM`)."""

    kind: Literal["dense"]
    feed_forward: Multiple4
    """Feed-forward channels of one layer."""

    def describe(self, vocabulary: Vocabulary) -> PreTrainedConfig:
        """The transformers config, without building anything."""
        return Qwen3Config(**self._shared(vocabulary), intermediate_size=self.feed_forward)

    def build(self, *, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
        """A model with fresh weights, the same for the same seed."""
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(self.describe(Vocabulary.of(tokenizer)))  # pyright: ignore[reportArgumentType]
