"""What a writer of bundles must know of a decoder: its sizes, and how its family computes.

RMS norms, rotary positions, grouped-query attention, a gated feed-forward or experts of that kind.
In what else families differ stands in `CONVENTIONS` and, where a config states it, in the config.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import open_config, read_number_format
from limbeck.models.config import EXPORTED_HEAD_MULTIPLE
from limbeck.runtimes.base import Runtime
from limbeck.runtimes.mixture import ExpertNames, Mixture, describe_mixture

ROTARY_TYPES = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose wavelengths do not depend on the length of the input."""
ACTIVATIONS = ("silu", "gelu_pytorch_tanh")
LAYER_TYPES = ("full_attention", "sliding_attention")


@dataclass(frozen=True)
class Conventions:
    """Where a family's layers differ from Llama's; a norm without a name is none."""

    attention_norm: str = "input_layernorm"
    attention_output_norm: str = ""
    feed_forward_norm: str = "post_attention_layernorm"
    feed_forward_output_norm: str = ""
    norm_offset: float = 0.0
    """A norm multiplies by its weight and this."""
    norms_whole_projections: bool = False
    """Norms of queries and keys are over all heads together, instead of each head."""
    rotates_partly: bool = False
    """A config's `partial_rotary_factor` is used; others have it and rotate whole heads."""
    is_rotary_interleaved: bool = False
    """Neighbouring channels are a rotary pair, instead of those half a head apart."""
    caps_attention: bool = False
    """A config's `attn_logit_softcapping` is used; Gemma 3 states one too, and does not."""
    scales_embeddings: bool = False
    """Embeddings are multiplied by the root of their width."""
    windows: Literal["all", "stated"] = "stated"
    """Whether a window of the config is every layer's, or those' of `layer_types`."""
    experts: ExpertNames | None = None
    """Where the parts of sparse layers lie; None: every layer is dense."""


_GEMMA = Conventions(
    attention_output_norm="post_attention_layernorm",
    feed_forward_norm="pre_feedforward_layernorm",
    feed_forward_output_norm="post_feedforward_layernorm",
    norm_offset=1.0,
    scales_embeddings=True,
)
CONVENTIONS: Mapping[str, Conventions] = {
    "gemma2": replace(_GEMMA, caps_attention=True),
    "gemma3_text": _GEMMA,
    "glm4": Conventions(
        attention_output_norm="post_self_attn_layernorm",
        feed_forward_output_norm="post_mlp_layernorm",
        rotates_partly=True,
        is_rotary_interleaved=True,
    ),
    "granite": Conventions(),
    "limbeck_moe": Conventions(experts=ExpertNames()),
    "llama": Conventions(),
    "mistral": Conventions(windows="all"),
    "mixtral": Conventions(
        windows="all",
        experts=ExpertNames(block="block_sparse_moe", gate="w1", up="w3", down="w2"),
    ),
    "olmo2": Conventions(
        attention_norm="",
        attention_output_norm="post_attention_layernorm",
        feed_forward_norm="",
        feed_forward_output_norm="post_feedforward_layernorm",
        norms_whole_projections=True,
    ),
    "olmoe": Conventions(norms_whole_projections=True, experts=ExpertNames()),
    "phi3": Conventions(windows="all", rotates_partly=True),
    "qwen2": Conventions(),
    "qwen2_moe": Conventions(experts=ExpertNames()),
    "qwen3": Conventions(),
    "qwen3_moe": Conventions(windows="all", experts=ExpertNames()),
    "smollm3": Conventions(),
}
"""By `model_type`; each is held against transformers in the tests."""


@dataclass(frozen=True)
class Rotary:
    """Rotary positions: pair i of a head turns by `frequencies[i]` radians a token."""

    frequencies: Float[np.ndarray, " pairs"]
    scale: float
    """Of the cosines and sines."""
    theta: float
    """Base of the frequencies, before whatever scales them."""


@dataclass(frozen=True)
class LayerAttention:
    """Which positions one layer attends to."""

    window: int | None
    """Latest tokens that it sees, the present one among them; None: all."""
    rotary: int | None
    """Which of the architecture's rotary positions; None: no positions."""


@dataclass(frozen=True)
class Architecture:
    """A decoder, dense or sparse."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    """Of the dense layers."""
    mixture: Mixture | None
    """Of the sparse layers; None: there are none."""
    rms_norm_eps: float
    max_tokens: int
    is_tied: bool
    activation: str
    """One of `ACTIVATIONS`."""
    has_output_bias: bool
    """Attention's last projection, or the feed-forward, has biases."""
    conventions: Conventions
    rotaries: tuple[Rotary, ...]
    layers: tuple[LayerAttention, ...]
    embedding_scale: float
    attention_scale: float
    """Of the products of queries and keys."""
    attention_softcap: float
    """c of c tanh(x / c) over those; 0: none."""
    residual_scale: float
    """Of what a block adds to the residual stream."""
    logit_scale: float
    logit_softcap: float


def count_idle(architecture: Architecture) -> int:
    """Parameters of the experts that a token does not pass."""
    mixture = architecture.mixture
    if mixture is None:
        return 0
    expert = 3 * mixture.width * architecture.hidden_size
    return len(mixture.layers) * (mixture.num_experts - mixture.picks) * expert


def format_name(folder: Path) -> str:
    """The number format of a checkpoint's weights; floats of all widths are exported as float32."""
    found = read_number_format(folder)
    return "float32" if found is None else found.kind


def read_architecture(folder: Path, *, runtime: Runtime) -> Architecture:
    """The architecture that `config.json` describes.

    Raises:
        CheckpointError: it is damaged, or the runtime computes none such.
    """
    return describe_architecture(
        open_config(folder), number_format=format_name(folder), runtime=runtime, place=folder
    )


def describe_architecture(
    config: PreTrainedConfig, *, number_format: str, runtime: Runtime, place: str | Path
) -> Architecture:
    """The architecture that a config describes, for a runtime that computes all it reads.

    Raises:
        CheckpointError: the runtime computes none such.
    """
    _check_supported(place, config, number_format=number_format, runtime=runtime)
    conventions = CONVENTIONS[config.model_type]
    width = _head_width(config)
    if width % EXPORTED_HEAD_MULTIPLE:
        raise CheckpointError(
            f"{place}: attention heads are {width} wide; a runtime's attention takes multiples of "
            f"{EXPORTED_HEAD_MULTIPLE}"
        )
    named = _rotary_parameters(config)
    rotaries = {name: _describe_rotary(config, name, parameters=found) for name, found in named}
    for rotary in rotaries.values():
        if (turned := 2 * len(rotary.frequencies)) % EXPORTED_HEAD_MULTIPLE:
            raise CheckpointError(
                f"{place}: rotates {turned} of {width} channels of a head; a runtime's attention "
                f"takes multiples of {EXPORTED_HEAD_MULTIPLE}"
            )
    query_scalar = getattr(config, "query_pre_attn_scalar", None) or width
    embedding_scale = config.hidden_size**0.5 if conventions.scales_embeddings else 1.0
    return Architecture(
        model_type=config.model_type,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=width,
        intermediate_size=getattr(config, "intermediate_size", 0),
        mixture=conventions.experts
        and describe_mixture(config, names=conventions.experts, place=place),
        rms_norm_eps=config.rms_norm_eps,
        max_tokens=config.max_position_embeddings,
        is_tied=bool(config.tie_word_embeddings),
        activation=_activation(config),
        has_output_bias=_has_output_bias(config),
        conventions=conventions,
        rotaries=tuple(rotaries.values()),
        layers=tuple(_describe_layers(config, conventions, rotaries=list(rotaries))),
        embedding_scale=getattr(config, "embedding_multiplier", embedding_scale),
        attention_scale=getattr(config, "attention_multiplier", query_scalar**-0.5),
        attention_softcap=(config.attn_logit_softcapping or 0.0)
        if conventions.caps_attention
        else 0.0,
        residual_scale=getattr(config, "residual_multiplier", 1.0),
        logit_scale=1 / getattr(config, "logits_scaling", 1.0),
        logit_softcap=getattr(config, "final_logit_softcapping", None) or 0.0,
    )


def _head_width(config: PreTrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _activation(config: PreTrainedConfig) -> str:
    return getattr(config, "hidden_activation", None) or config.hidden_act


def _has_output_bias(config: PreTrainedConfig) -> bool:
    # GLM-4's `attention_bias` is of queries, keys and values alone.
    of_attention = getattr(config, "attention_bias", False) and config.model_type != "glm4"
    return bool(of_attention or getattr(config, "mlp_bias", False))


def _rotary_parameters(config: PreTrainedConfig) -> list[tuple[str | None, dict[str, Any]]]:
    """Those of each type of layer; one without a name where all have the same."""
    stated = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in stated or not stated:
        return [(None, stated)]
    return [(name, stated[name]) for name in LAYER_TYPES if name in set(config.layer_types)]


def _describe_rotary(
    config: PreTrainedConfig, layer_type: str | None, *, parameters: Mapping[str, Any]
) -> Rotary:
    kind, theta = parameters.get("rope_type", "default"), float(parameters["rope_theta"])
    if kind == "default":
        share = parameters.get("partial_rotary_factor", 1.0)
        width = _head_width(config)
        turned = int(width * share) if CONVENTIONS[config.model_type].rotates_partly else width
        exponents = torch.arange(0, turned, 2).float() / turned
        return Rotary((1.0 / theta**exponents).numpy(), 1.0, theta)
    frequencies, scale = ROPE_INIT_FUNCTIONS[kind](
        config, torch.device("cpu"), layer_type=layer_type
    )
    return Rotary(frequencies.float().numpy(), float(scale), theta)


def _describe_layers(
    config: PreTrainedConfig, conventions: Conventions, *, rotaries: list[str | None]
) -> list[LayerAttention]:
    window = getattr(config, "sliding_window", None)
    if conventions.windows == "all" and window is not None:
        types = ["sliding_attention"] * config.num_hidden_layers
    else:
        stated = getattr(config, "layer_types", None)
        types = stated or ["full_attention"] * config.num_hidden_layers
    turned = getattr(config, "no_rope_layers", None) or [1] * config.num_hidden_layers
    return [
        LayerAttention(
            window=window if kind == "sliding_attention" else None,
            rotary=(0 if rotaries == [None] else rotaries.index(kind)) if turns else None,
        )
        for kind, turns in zip(types, turned, strict=True)
    ]


def _check_supported(
    place: str | Path, config: PreTrainedConfig, *, number_format: str, runtime: Runtime
) -> None:
    known = runtime.architectures
    if known != "any" and config.model_type not in known:
        raise CheckpointError(
            f"{place}: architecture {config.model_type!r} cannot be exported to "
            f"{runtime.name}; supported: {', '.join(sorted(known))} (distil it into a student "
            "of one of these first)"
        )
    if number_format not in runtime.formats:
        raise CheckpointError(
            f"{place}: weights of format {number_format!r} cannot be exported to {runtime.name}; "
            f"supported: {', '.join(sorted(runtime.formats))}"
        )
    rotary = {found.get("rope_type", "default") for _, found in _rotary_parameters(config)}
    layers = set(getattr(config, "layer_types", None) or ()) - {*LAYER_TYPES}
    if rotary - {*ROTARY_TYPES}:
        found, expected = f"rotary embedding {min(rotary)!r}", ", ".join(ROTARY_TYPES)
    elif layers:
        found, expected = f"layers of {min(layers)!r}", ", ".join(LAYER_TYPES)
    elif getattr(config, "clip_qkv", None) is not None:
        found, expected = f"clip_qkv {config.clip_qkv}", "queries, keys and values as they are"
    elif getattr(config, "use_bidirectional_attention", False):
        found, expected = "attention in both directions", "causal attention"
    elif _activation(config) not in ACTIVATIONS:
        found, expected = f"activation {_activation(config)!r}", ", ".join(ACTIVATIONS)
    else:
        return
    raise CheckpointError(
        f"{place}: {found} cannot be exported; supported: {expected} (distil it into a student "
        "built so first, or serve the checkpoint itself)"
    )
