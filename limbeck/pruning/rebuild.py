"""A smaller model of the same architecture, from its config and its tensors."""

import copy
from collections.abc import Mapping

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
    with no_init_weights():
        smaller = AutoModelForCausalLM.from_config(
            config, dtype=model.dtype, attn_implementation=model.config._attn_implementation
        )
    smaller.tie_weights()
    try:
        smaller.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{type(model).__name__}: {fault}: {str(error)[:400]}") from None
    smaller.generation_config = copy.deepcopy(model.generation_config)
    return smaller.to(model.device).train(model.training)


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
