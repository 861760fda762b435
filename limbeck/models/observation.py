"""What modules of a model read and make while it runs over batches."""

import abc
from collections.abc import Iterable, Mapping
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import override

from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward


class Observer(abc.ABC):
    """Gathers figures of one module, token by token; padding is left out."""

    tokens: Tensor | None = None

    def __call__(
        self, module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor | tuple[Tensor, ...]
    ) -> None:
        """The hook of torch."""
        assert self.tokens is not None
        made = outputs if isinstance(outputs, Tensor) else outputs[0]
        given = (select_rows(item, self.tokens).float() for item in (inputs[0], made))
        self.add(*given)

    @abc.abstractmethod
    def add(self, given: Float[Tensor, "tokens _"], made: Float[Tensor, "tokens _"]) -> None:
        """Take in what the module read and made at some tokens."""


def select_rows(
    states: Float[Tensor, "*rows channels"], tokens: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "kept channels"]:
    """The states of real tokens, whatever shape a module reads; all of an expert's share."""
    if states.shape[:-1] == tokens.shape:
        return states[tokens]
    if states.shape[:-1] == (tokens.numel(),):
        return states[tokens.flatten()]
    return states.flatten(0, -2)  # with those of the padding that picked the expert


@final
class Squares(Observer):
    """The sum of squares of each channel that a module reads, over so many tokens."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.count = 0

    @override
    def add(self, given: Float[Tensor, "tokens _"], made: Float[Tensor, "tokens _"]) -> None:
        self.total = self.total + given.square().sum(dim=0)
        self.count += len(given)


@torch.no_grad()
def observe(
    model: PreTrainedModel, *, observers: Mapping[str, Observer], batches: Iterable[Batch]
) -> None:
    """Run the model over batches, each observer at the module of its name."""
    handles = [
        model.get_submodule(name).register_forward_hook(item) for name, item in observers.items()
    ]
    training = model.training
    model.eval()
    try:
        for batch in batches:
            batch = batch.to(model.device)
            for item in observers.values():
                item.tokens = batch.tokens
            KeptForward(model)(batch)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
