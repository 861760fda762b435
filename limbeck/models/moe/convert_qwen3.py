"""The mixture as transformers' own Qwen3-MoE, and back: the same tensors under the same names.

What Qwen3-MoE has no place for is refused, never dropped: other fusions, shared experts, groups,
sigmoid scores, and balance biases, which decide over picks. Left out: every other architecture.
"""

import torch
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from limbeck.contracts.errors import CheckpointError
from limbeck.models.config import MoeArchitecture
from limbeck.models.moe.configuration import LimbeckMoeConfig
from limbeck.models.moe.layers import Gate
from limbeck.models.moe.modeling import LimbeckMoeForCausalLM

SHARED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "tie_word_embeddings",
    "rope_parameters",
    "attention_bias",
    "attention_dropout",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)
"""Settings that mean the same in both configs."""
PLAIN = {
    "fusion": "weighted_sum",
    "n_shared_experts": 0,
    "n_group": 1,
    "scoring_func": "softmax",
    "routed_scaling_factor": 1.0,
}
"""Settings without which our mixture is Qwen3-MoE."""


def convert(model: PreTrainedModel, *, architecture: MoeArchitecture) -> PreTrainedModel:
    """The model in another architecture, with the same logits.

    Raises:
        CheckpointError: the model is of neither kind, or does what the other cannot.
    """
    describe_converted(model.config, architecture=architecture)
    if isinstance(model, LimbeckMoeForCausalLM):
        return to_qwen3_moe(model)
    assert isinstance(model, Qwen3MoeForCausalLM), type(model)
    return from_qwen3_moe(model)


def describe_converted(
    config: PreTrainedConfig, *, architecture: MoeArchitecture
) -> PreTrainedConfig:
    """The config of a model in another architecture.

    Raises:
        CheckpointError: the config is of neither kind, or describes what the other cannot do.
    """
    if architecture == "qwen3_moe" and isinstance(config, LimbeckMoeConfig):
        return _describe_qwen3_moe(config)
    if architecture == "limbeck_moe" and isinstance(config, Qwen3MoeConfig):
        return _describe_limbeck_moe(config)
    source = {"qwen3_moe": "limbeck_moe", "limbeck_moe": "qwen3_moe"}[architecture]
    raise CheckpointError(
        f"a {config.model_type!r} model does not convert to {architecture!r}, expected "
        f"{source!r}; every other architecture is used as it is"
    )


@torch.no_grad()
def to_qwen3_moe(model: LimbeckMoeForCausalLM) -> Qwen3MoeForCausalLM:
    """A Qwen3-MoE model with the same logits; its weights are copies.

    Raises:
        CheckpointError: the mixture does what Qwen3-MoE cannot.
    """
    described = _describe_qwen3_moe(model.config)
    gates = [module for module in model.modules() if isinstance(module, Gate)]
    if any(gate.balance_bias.any() for gate in gates):
        raise CheckpointError(
            "the gates have balance biases, which decide over picks and which Qwen3-MoE does not "
            "have; train with objective.balance.bias_rate=0 (a balance loss instead), or let "
            "`convert` drop them (balance_bias: drop) and train on from there with bias_rate=0"
        )
    theirs = Qwen3MoeForCausalLM(described)
    state = {name: item for name, item in model.state_dict().items() if "balance_bias" not in name}
    theirs.load_state_dict(state)
    return theirs.eval()


def _describe_qwen3_moe(config: LimbeckMoeConfig) -> Qwen3MoeConfig:
    found = {name: getattr(config, name) for name in PLAIN}
    if found != PLAIN:
        other = {name: value for name, value in found.items() if value != PLAIN[name]}
        raise CheckpointError(
            f"Qwen3-MoE has no place for {other}; train with "
            f"{ {name: PLAIN[name] for name in other} } to exchange the checkpoint"
        )
    return Qwen3MoeConfig(
        **_shared(config),
        norm_topk_prob=config.norm_topk_prob,
        intermediate_size=config.moe_intermediate_size,
        mlp_only_layers=[],
    )


@torch.no_grad()
def from_qwen3_moe(model: Qwen3MoeForCausalLM) -> LimbeckMoeForCausalLM:
    """Our mixture with the same logits; its weights are copies, its balance biases zero.

    Raises:
        CheckpointError: some layers are dense, or attention slides.
    """
    config = model.config
    assert isinstance(config, Qwen3MoeConfig)
    ours = LimbeckMoeForCausalLM(_describe_limbeck_moe(config))
    missing, unexpected = ours.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected, unexpected
    assert all("balance_bias" in name for name in missing), missing
    return ours.eval()


def _describe_limbeck_moe(config: Qwen3MoeConfig) -> LimbeckMoeConfig:
    dense = sorted(config.mlp_only_layers or ())
    if dense or config.decoder_sparse_step != 1:
        raise CheckpointError(
            f"layers {dense or f'other than every {config.decoder_sparse_step}th'} are dense; our "
            "mixture is sparse in every layer: use the checkpoint as it is"
        )
    if config.use_sliding_window:
        raise CheckpointError("attention slides; our mixture attends to everything before a token")
    return LimbeckMoeConfig(**_shared(config), norm_topk_prob=config.norm_topk_prob)


def _shared(config: PreTrainedConfig) -> dict:
    return {name: getattr(config, name) for name in SHARED}
