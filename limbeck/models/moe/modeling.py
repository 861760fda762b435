"""The teacher: a causal decoder of Qwen3 attention blocks with sparse feed-forward layers.

A `PreTrainedModel` registered with the Auto classes, so `generate`, KV caches and `save_pretrained`
work as for any published model.
"""

from dataclasses import dataclass
from typing import cast, no_type_check

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.qwen3_moe.configuration_qwen3_moe import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import (
    Qwen3MoeAttention,
    Qwen3MoeMLP,
    Qwen3MoeRMSNorm,
    Qwen3MoeRotaryEmbedding,
)

from limbeck.models.moe.configuration import LimbeckMoeConfig
from limbeck.models.moe.fusion import AttentionFusion, build_fusion
from limbeck.models.moe.layers import Experts, Gate, GateRules, Routing, Scoring, SparseFeedForward


@dataclass
class MoeOutput(CausalLMOutputWithPast):
    """What the model returns: transformers' fields and the routing of every layer."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    last_hidden_state: Tensor | None = None
    routing: tuple[Routing, ...] | None = None


@no_type_check  # it is no Qwen3MoeConfig, but has every attribute that the blocks read
def _as_qwen3(config: LimbeckMoeConfig) -> Qwen3MoeConfig:
    """The config for transformers' own blocks."""
    return config


def build_feed_forward(config: LimbeckMoeConfig) -> SparseFeedForward:
    """The sparse layer that a config describes, with empty weights."""
    rules = GateRules(
        picks=config.num_experts_per_tok,
        scoring=cast(Scoring, config.scoring_func),
        normalize="picked" if config.norm_topk_prob else "none",
        scale=config.routed_scaling_factor,
        num_groups=config.n_group,
        groups_per_token=config.topk_group,
    )
    shared_width = config.n_shared_experts * config.moe_intermediate_size
    return SparseFeedForward(
        rules,
        num_experts=config.num_experts,
        hidden=config.hidden_size,
        width=config.moe_intermediate_size,
        activation=config.hidden_act,
        fusion=build_fusion(
            config.fusion,
            hidden=config.hidden_size,
            num_heads=config.fusion_heads,
            rank=config.fusion_rank,
        ),
        shared_expert=Qwen3MoeMLP(_as_qwen3(config), intermediate_size=shared_width)
        if shared_width
        else None,
    )


class MoeLayer(GradientCheckpointingLayer):
    """Pre-norm attention and sparse feed-forward, each around a residual."""

    def __init__(self, config: LimbeckMoeConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Qwen3MoeAttention(_as_qwen3(config), layer)
        self.mlp = build_feed_forward(config)
        self.input_layernorm = Qwen3MoeRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = Qwen3MoeRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(self, hidden: Tensor, **attention: object) -> tuple[Tensor, Routing]:
        """The layer's output and its routing."""
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden), **attention)
        hidden = hidden + attended
        fused, routing = self.mlp(self.post_attention_layernorm(hidden))
        return hidden + fused, routing


class LimbeckMoePreTrainedModel(PreTrainedModel):
    """Names and initialisation that the decoder and its language head share."""

    config: LimbeckMoeConfig
    config_class = LimbeckMoeConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MoeLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, Experts):
            nn.init.normal_(module.gate_up_proj, std=std)
            nn.init.normal_(module.down_proj, std=std)
        elif isinstance(module, Gate):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.balance_bias)
        elif isinstance(module, AttentionFusion):
            nn.init.zeros_(module.query)
            nn.init.normal_(module.key, std=std)


class LimbeckMoeModel(LimbeckMoePreTrainedModel):
    """The decoder without its language head."""

    def __init__(self, config: LimbeckMoeConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            MoeLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = Qwen3MoeRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = Qwen3MoeRotaryEmbedding(config=_as_qwen3(config))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: object,
    ) -> MoeOutput:
        """Final hidden states; on request those before each layer, then the final ones."""
        if inputs_embeds is None:
            inputs_embeds = cast(Tensor, self.embed_tokens(input_ids))
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and past_key_values is None and not self.training:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            seen = past_key_values.get_seq_length() if past_key_values is not None else 0
            steps = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)
            position_ids = (steps + seen).unsqueeze(0)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        hidden = inputs_embeds
        positions = self.rotary_emb(hidden, position_ids=position_ids)
        states, routings = [], []
        for layer in self.layers:
            states.append(hidden)
            hidden, routing = layer(
                hidden,
                attention_mask=mask,
                position_embeddings=positions,
                past_key_values=past_key_values,
            )
            routings.append(routing)
        hidden = self.norm(hidden)
        return MoeOutput(
            last_hidden_state=hidden,
            past_key_values=past_key_values,
            hidden_states=(*states, hidden) if output_hidden_states else None,
            routing=tuple(routings),
        )


class LimbeckMoeForCausalLM(LimbeckMoePreTrainedModel, GenerationMixin):
    """The decoder with its language head."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: LimbeckMoeConfig) -> None:
        super().__init__(config)
        self.model = LimbeckMoeModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: object,
    ) -> MoeOutput:
        """Next-token logits; with labels also the mean cross-entropy that transformers computes."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        output.logits = self.lm_head(output.last_hidden_state[:, keep, :])
        if labels is not None:
            output.loss = self.loss_function(output.logits, labels, self.config.vocab_size)
        return output


AutoModelForCausalLM.register(LimbeckMoeConfig, LimbeckMoeForCausalLM)
