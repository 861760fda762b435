"""The parameters of any architecture, from its module tree on the meta device."""

from torch import nn
from transformers import PreTrainedConfig

from limbeck.models.checkpoints import build_without_weights
from limbeck.sizing.decoders import EmbeddingTable, Parameter


def build_parameters(config: PreTrainedConfig) -> list[Parameter]:
    """Every parameter once, in the order of the module tree.

    Raises:
        CheckpointError: transformers cannot build the config as a causal language model.
    """
    model = build_without_weights(config)
    tables: dict[int, EmbeddingTable] = {
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
