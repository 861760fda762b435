"""Fresh models by description: the mixture-of-experts teacher and the dense student."""

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from limbeck.contracts.config import Config
from limbeck.models.moe.fusion import FusionKind
from limbeck.models.moe.modeling import LimbeckMoeConfig, LimbeckMoeForCausalLM
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
    num_shared_experts: Annotated[int, Field(ge=0)] = 0
    """Experts that every token passes, beside those that it picks; none is dropped or balanced."""
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    """How the gate's logits become scores; sigmoid scores do not compete with each other."""
    normalize_gate: Literal["picked", "none"] = "picked"
    """Whether the picked experts' weights are scaled to sum to one."""
    routed_scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor of the picked experts' weights."""
    num_groups: Positive = 1
    """Groups that the experts are divided into, as over the machines that hold them."""
    groups_per_token: Positive = 1
    """A token picks its experts from so many groups."""
    fusion: FusionKind = "weighted_sum"
    """How the outputs of a token's experts become one."""
    fusion_heads: Positive = 4
    """Heads of either attention."""
    fusion_rank: Positive = 16
    """Channels of a head's scores in low-rank `attention`."""

    @model_validator(mode="after")
    def _check_shapes(self) -> "MoeModel":
        if self.num_experts % self.num_groups:
            raise ValueError(
                f"num_experts {self.num_experts} cannot be divided into num_groups "
                f"{self.num_groups}: make it a multiple"
            )
        reachable = (
            self.num_experts // self.num_groups * min(self.groups_per_token, self.num_groups)
        )
        if self.groups_per_token > self.num_groups or self.experts_per_token > reachable:
            raise ValueError(
                f"a token picks {self.experts_per_token} experts from {self.groups_per_token} of "
                f"{self.num_groups} groups, which hold {reachable}: raise groups_per_token, at "
                "most to num_groups, or lower experts_per_token"
            )
        if self.fusion != "weighted_sum" and self.hidden % self.fusion_heads:
            raise ValueError(
                f"hidden {self.hidden} cannot be divided among fusion_heads {self.fusion_heads}"
            )
        return self

    def describe(self, vocabulary: Vocabulary) -> PreTrainedConfig:
        """The transformers config, without building anything."""
        return LimbeckMoeConfig(
            **self._shared(vocabulary),
            num_experts=self.num_experts,
            num_experts_per_tok=self.experts_per_token,
            moe_intermediate_size=self.expert_width,
            scoring_func=self.scoring,
            normalize_gate=self.normalize_gate,
            routed_scaling_factor=self.routed_scale,
            n_group=self.num_groups,
            topk_group=self.groups_per_token,
            n_shared_experts=self.num_shared_experts,
            fusion=self.fusion,
            fusion_heads=self.fusion_heads,
            fusion_rank=self.fusion_rank,
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
