"""What modules of a model read and make while it runs over batches."""

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
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

    @abc.abstractmethod
    def add(self, given: Float[Tensor, "tokens _"], made: Float[Tensor, "tokens _"]) -> None:
        """Take in what the module read and made at some tokens."""


@contextmanager
def hooked(
    modules: Mapping[str, nn.Module], *, note: Callable[[str, Tensor, Tensor], None]
) -> Iterator[None]:
    """Within, `note` gets the name, the first input and the output of a module at every call."""

    def make_hook(name: str) -> Callable[..., None]:
        def hook(
            module: nn.Module,
            inputs: tuple[object, ...],
            named: Mapping[str, object],
            outputs: Tensor | tuple[object, ...],
        ) -> None:
            given, *_ = (*inputs, *named.values())
            made = outputs if isinstance(outputs, Tensor) else outputs[0]
            assert isinstance(given, Tensor)
            assert isinstance(made, Tensor)
            note(name, given, made)

        return hook

    with ExitStack() as stack:
        for name, module in modules.items():
            handle = module.register_forward_hook(make_hook(name), with_kwargs=True)
            stack.callback(handle.remove)
        yield


@contextmanager
def observing(
    model: nn.Module, *, observers: Mapping[str, Observer], tokens: Bool[Tensor, "batch tokens"]
) -> Iterator[None]:
    """Within, which is one batch, each observer takes in what the module of its name does."""

    def note(name: str, given: Tensor, made: Tensor) -> None:
        observers[name].add(*(select_rows(item, tokens).float() for item in (given, made)))

    with hooked({name: model.get_submodule(name) for name in observers}, note=note):
        yield


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
    training = model.training
    model.eval()
    try:
        for batch in batches:
            batch = batch.to(model.device)
            with observing(model, observers=observers, tokens=batch.tokens):
                KeptForward(model)(batch)
    finally:
        model.train(training)
