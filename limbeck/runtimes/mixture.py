"""Mixtures of experts for a writer of bundles: how tokens are routed, and where the weights lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import PreTrainedConfig

from limbeck.contracts.errors import CheckpointError


@dataclass(frozen=True)
class ExpertNames:
    """What a family's checkpoints call the parts of a sparse layer."""

    block: str = "mlp"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"


@dataclass(frozen=True)
class Mixture:
    """The sparse layers of a decoder, all alike."""

    names: ExpertNames
    layers: frozenset[int]
    """Which layers are sparse; the others are dense."""
    num_experts: int
    picks: int
    width: int
    """Channels of an expert."""
    shared_width: int
    """Channels of the shared expert; 0: none."""
    scoring: Literal["softmax", "sigmoid"]
    normalizes: bool
    """Whether the weights of a token's experts are scaled to sum to one."""
    scale: float
    """Of all weights."""
    num_groups: int
    groups_per_token: int
    """A token picks only from so many of the groups that the experts are divided into."""


def describe_mixture(config: PreTrainedConfig, *, names: ExpertNames, place: str | Path) -> Mixture:
    """The sparse layers that a config describes.

    Raises:
        CheckpointError: no writer of bundles knows how to compute them.
    """
    fusion = getattr(config, "fusion", "weighted_sum")
    if fusion != "weighted_sum":
        raise CheckpointError(
            f"{place}: experts fused by {fusion!r} cannot be exported; supported: weighted_sum"
        )
    if config.hidden_act != "silu":
        raise CheckpointError(
            f"{place}: experts with activation {config.hidden_act!r} cannot be exported; "
            "supported: silu"
        )
    num_experts = getattr(config, "num_experts", None) or config.num_local_experts
    picks = config.num_experts_per_tok
    shared = getattr(config, "n_shared_experts", 0) * getattr(config, "moe_intermediate_size", 0)
    return Mixture(
        names=names,
        layers=frozenset(_sparse_layers(config)),
        num_experts=num_experts,
        picks=picks,
        width=getattr(config, "moe_intermediate_size", None) or config.intermediate_size,
        shared_width=getattr(config, "shared_expert_intermediate_size", 0) or shared,
        scoring=getattr(config, "scoring_func", "softmax"),
        # Mixtral states nothing, and normalises; one expert alone is never normalised by Limbeck's
        # own mixtures, and always by transformers' others that normalise.
        normalizes=getattr(config, "norm_topk_prob", True)
        and (picks > 1 or config.model_type != "limbeck_moe"),
        scale=getattr(config, "routed_scaling_factor", 1.0),
        num_groups=getattr(config, "n_group", 1),
        groups_per_token=getattr(config, "topk_group", 1),
    )


def _sparse_layers(config: PreTrainedConfig) -> list[int]:
    step = getattr(config, "decoder_sparse_step", 1)
    dense = getattr(config, "mlp_only_layers", None) or ()
    every = range(config.num_hidden_layers)
    return [layer for layer in every if layer not in dense and (layer + 1) % step == 0]
