"""A smaller model of the same architecture, from its config and its tensors."""

import copy
from collections.abc import Mapping

import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from limbeck.contracts.errors import CheckpointError


def rebuild(
    model: PreTrainedModel,
    *,
    config: PreTrainedConfig,
    tensors: Mapping[str, Tensor],
    fault: str,
) -> PreTrainedModel:
    """A new model of this config with these tensors, otherwise as the old one, which is unchanged.

    Embeddings are tied where those of the old one are.

    Raises:
        CheckpointError: the tensors are not those of the config; `fault` says what that means.
    """
    try:
        with torch.device(model.device), no_init_weights():
            smaller = AutoModelForCausalLM.from_config(
                config, dtype=model.dtype, attn_implementation=model.config._attn_implementation
            )
        smaller.tie_weights()
    except Exception as error:  # whatever an architecture's own code meets in a wrong config
        raise CheckpointError(
            f"{type(model).__name__}: {fault}: transformers does not build what its config would "
            f"describe: {error!r}"
        ) from error
    if misfit := _find_misfit(smaller, tensors):
        raise CheckpointError(f"{type(model).__name__}: {fault}: {misfit}")
    smaller.load_state_dict(tensors, strict=True)
    smaller.generation_config = copy.deepcopy(model.generation_config)
    return smaller.train(model.training)


def _find_misfit(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> str:
    """The first tensor that is not one of the model's; '' for none."""
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name in (*found, *expected):
        if found.get(name) != expected.get(name):
            left, built = (shapes.get(name, "not there") for shapes in (found, expected))
            return f"of {name}, {left} would be left, and its config describes {built}"
    return ""


def check_config(config: PreTrainedConfig) -> None:
    """Refuse sizes with which transformers neither saves nor loads a config.

    Raises:
        CheckpointError: a check of its own fails, as of Llama's hidden width, which has to be a
            multiple of the heads although `head_dim` says how wide they are.
    """
    try:
        config.validate()
    except StrictDataclassClassValidationError as error:
        raise CheckpointError(
            f"{type(config).__name__}: transformers does not load the sizes that would be left: "
            f"{str(error.__cause__).rstrip('.')}; change heads_ratio or hidden_ratio"
        ) from None
