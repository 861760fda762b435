"""Leaving whole layers out: those that change their input least.

A layer's influence is 1 - cos(what goes in, what comes out), in the mean over tokens (ShortGPT: Men
et al. 2024, arXiv:2403.03853, sec. 3.1).
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from typing_extensions import override

from limbeck.models.batch import Batch
from limbeck.models.observation import Observer, observe
from limbeck.models.structure import find_layers
from limbeck.pruning.rebuild import rebuild
from limbeck.pruning.shapes import keep_settings


class _Influence(Observer):
    """The mean cosine distance between a layer's input and its output."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    @override
    def add(self, given: Float[Tensor, "tokens _"], made: Float[Tensor, "tokens _"]) -> None:
        self.total += float((1 - functional.cosine_similarity(given, made, dim=-1)).sum())
        self.count += len(given)


def measure_influence(
    model: PreTrainedModel, *, batches: Iterable[Batch]
) -> Float[Tensor, " layers"]:
    """The influence of every layer on its input, 0 to 2."""
    prefix, layers = find_layers(model)
    found = {f"{prefix}.{index}": _Influence() for index in range(len(layers))}
    observe(model, observers=found, batches=batches)
    return torch.tensor([item.total / item.count for item in found.values()])


@contextmanager
def bypass(model: PreTrainedModel, *, layers: Sequence[int]) -> Iterator[None]:
    """The model with these layers handing their input on, for as long as the block runs."""

    def hand_on(
        module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor | tuple[Tensor, ...]
    ) -> Tensor | tuple[Tensor, ...]:
        return inputs[0] if isinstance(outputs, Tensor) else (inputs[0], *outputs[1:])

    blocks = find_layers(model)[1]
    handles = [blocks[layer].register_forward_hook(hand_on) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def cut_layers(model: PreTrainedModel, *, kept: Sequence[int]) -> PreTrainedModel:
    """A new model of these layers only, ascending, in the same architecture.

    Raises:
        CheckpointError: its config does not describe layers that can be left out.
    """
    prefix, _ = find_layers(model)
    config = copy.deepcopy(model.config)
    keep_settings(config.get_text_config(), layers=kept)
    place = {f"{prefix}.{old}": f"{prefix}.{new}" for new, old in enumerate(kept)}
    tensors = {}
    for name, tensor in model.state_dict().items():
        owner = ".".join(name.split(".")[: prefix.count(".") + 2])
        if name.startswith(f"{prefix}.") and owner not in place:
            continue
        tensors[name.replace(owner, place.get(owner, owner), 1)] = tensor
    return rebuild(model, config=config, tensors=tensors, fault="layers cannot be left out")
