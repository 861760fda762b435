"""The parameters of any architecture, from its module tree on the meta device."""

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.initialization import no_init_weights

import limbeck.models.moe.modeling
import limbeck.models.vision.modeling  # noqa: F401  (both register architectures with the Auto classes)
from limbeck.contracts.errors import CheckpointError
from limbeck.sizing.decoders import Parameter, Table


def build_parameters(config: PreTrainedConfig) -> list[Parameter]:
    """Every parameter once, in the order of the module tree.

    Raises:
        CheckpointError: transformers cannot build the config as a causal language model.
    """
    try:
        with torch.device("meta"), no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            model.tie_weights()
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise CheckpointError(
            f"a config of type {config.model_type!r} does not describe a causal language model: "
            f"{str(error)[:400]}"
        ) from None
    tables: dict[int, Table] = {
        id(module.weight): "lookup"
        for module in model.modules()
        if isinstance(module, nn.Embedding)
    }
    head = model.get_output_embeddings()
    if isinstance(head, nn.Module):
        tables[id(head.weight)] = "head"
    return [
        Parameter(
            name,
            tuple(parameter.shape),
            "" if "position_embedding" in name else tables.get(id(parameter), ""),
        )
        for name, parameter in model.named_parameters()
    ]
