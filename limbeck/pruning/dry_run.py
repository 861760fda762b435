"""A cut of a model without numbers: whether what is left is a model of the same architecture.

Shapes alone are tried, on torch's meta device. Left out: which parts go, and whether the smaller
model answers as the masked one, which the stage compares.
"""

from collections.abc import Callable, Mapping

from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.models.config import GroupKind
from limbeck.models.structure import Groups, find_channels, find_heads, find_layers
from limbeck.pruning.depth import cut_layers
from limbeck.pruning.experts import find_experts
from limbeck.pruning.surgery import cut
from limbeck.pruning.width import find_stream, take_channels

FINDERS: Mapping[GroupKind, Callable[[PreTrainedModel], tuple[Groups, ...]]] = {
    "channels": find_channels,
    "heads": find_heads,
    "experts": find_experts,
}


def try_cut(model: PreTrainedModel, *, num_kept: Mapping[GroupKind, int]) -> None:
    """Cut a model on the meta device, in the order of the stage.

    Raises:
        CheckpointError: parameters depend on what is cut in a way that no rule knows.
    """
    kept = {
        groups: tuple(range(num_kept[kind]))
        for kind, find in FINDERS.items()
        if kind in num_kept
        for groups in find(model)
    }
    smaller = cut(model, kept=kept) if kept else model
    if "layers" in num_kept:
        smaller = _try_depth(smaller, count=num_kept["layers"])
    if "hidden" in num_kept:
        stream = find_stream(smaller)
        take_channels(smaller, stream=stream, kept=range(num_kept["hidden"]))


def _try_depth(model: PreTrainedModel, *, count: int) -> PreTrainedModel:
    """A model of the first layers; before, one layer of each kind is left out for itself.

    Which ones go is decided by text, and a config that counts its dense layers, say, and lists none
    describes another model when one of those goes.
    """
    if "altup_num_inputs" in model.config.get_text_config().to_dict():
        raise CheckpointError(
            f"{type(model).__name__}: its layers read several residual streams (AltUp), so none "
            "hands its input on; leave layers_ratio out"
        )
    layers = find_layers(model)[1]
    kinds = {
        tuple((name, item.shape) for name, item in layers[place].named_parameters()): place
        for place in range(1, len(layers) - 1)
    }
    for gone in kinds.values():
        cut_layers(model, kept=[place for place in range(len(layers)) if place != gone])
    return cut_layers(model, kept=[*range(count - 1), len(layers) - 1])
