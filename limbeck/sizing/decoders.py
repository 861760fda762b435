"""The parameters of the decoders that recipes describe, without building them.

Importing an architecture takes seconds, a plan of a recipe should not. What stands here is what the
module tree holds, in its order.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from limbeck.models.decoder_sizes import DecoderSizes, SizedConfig

NORMED_HEADS = ("qwen3", "limbeck_moe")
"""Families with norms of queries and keys."""
EmbeddingTable = Literal["", "lookup", "head"]
"""Whether a parameter holds a row a token, and whether logits are products with it."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a model; a tied one is listed once."""

    name: str
    shape: tuple[int, ...]
    table: EmbeddingTable = ""


def list_decoder_parameters(config: SizedConfig) -> list[Parameter] | None:
    """The parameters of a described decoder, of a Qwen3 or of our mixture; None for any other."""
    if not _is_listed(config) or config.attention_bias:
        return None
    table = (config.vocab_size, config.hidden_size)
    tied = config.tie_word_embeddings
    found = [Parameter("model.embed_tokens.weight", table, "head" if tied else "lookup")]
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        found += [
            Parameter(prefix + name, shape)
            for name, shape in (*_attention(config), *_feed_forward(config), *_norms(config))
        ]
    found.append(Parameter("model.norm.weight", (config.hidden_size,)))
    return found if tied else [*found, Parameter("lm_head.weight", table, "head")]


def _is_listed(config: SizedConfig) -> bool:
    if isinstance(config, DecoderSizes):
        return True
    # Slow to import, and imported already where there is a config of theirs.
    from transformers import Qwen3Config

    from limbeck.models.moe.configuration import LimbeckMoeConfig

    return type(config) in (Qwen3Config, LimbeckMoeConfig)


Shapes = Iterator[tuple[str, tuple[int, ...]]]


def _attention(config: SizedConfig) -> Shapes:
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    for name, rows in (("q", queries), ("k", keys), ("v", keys)):
        yield f"self_attn.{name}_proj.weight", (rows, config.hidden_size)
        if config.model_type == "qwen2":
            yield f"self_attn.{name}_proj.bias", (rows,)
    yield "self_attn.o_proj.weight", (config.hidden_size, queries)
    if config.model_type not in NORMED_HEADS:
        return
    yield "self_attn.q_norm.weight", (config.head_dim,)
    yield "self_attn.k_norm.weight", (config.head_dim,)


def _feed_forward(config: SizedConfig) -> Shapes:
    if config.model_type != "limbeck_moe":
        yield from _gated_block("mlp.", width=config.intermediate_size, hidden=config.hidden_size)
        return
    hidden, width, experts = config.hidden_size, config.moe_intermediate_size, config.num_experts
    yield "mlp.gate.weight", (experts, hidden)
    yield "mlp.experts.gate_up_proj", (experts, 2 * width, hidden)
    yield "mlp.experts.down_proj", (experts, hidden, width)
    if config.fusion == "attention":
        for name in ("query", "key"):
            yield f"mlp.fusion.{name}", (config.fusion_heads * config.fusion_rank, hidden)
    elif config.fusion == "full_attention":
        for name in ("query", "key", "value", "output"):
            yield f"mlp.fusion.{name}.weight", (hidden, hidden)
    if config.n_shared_experts:
        shared = config.n_shared_experts * width
        yield from _gated_block("mlp.shared_expert.", width=shared, hidden=hidden)


def _gated_block(prefix: str, *, width: int, hidden: int) -> Shapes:
    yield prefix + "gate_proj.weight", (width, hidden)
    yield prefix + "up_proj.weight", (width, hidden)
    yield prefix + "down_proj.weight", (hidden, width)


def _norms(config: SizedConfig) -> Shapes:
    yield "input_layernorm.weight", (config.hidden_size,)
    yield "post_attention_layernorm.weight", (config.hidden_size,)
