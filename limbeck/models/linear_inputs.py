"""Mean products of what linear layers read, over batches: the Hessians of their squared errors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from limbeck.models.observation import Observer, hooked


@final
class MeanProducts(Observer):
    """The mean of x x^T over the inputs x of a layer."""

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0
        self.num_tokens = 0

    @override
    def add(self, given: Float[Tensor, "tokens columns"], made: Float[Tensor, "tokens _"]) -> None:
        self._total = self._total + (given.t() @ given).double()
        self.num_tokens += len(given)

    def mean(self) -> Float[Tensor, "columns columns"]:
        """In float64, of at least one token."""
        assert isinstance(self._total, Tensor)
        return self._total / self.num_tokens


@dataclass(frozen=True)
class Readers:
    """Linear layers that read the very same tensors, so that one measurement serves all."""

    names: tuple[str, ...]
    num_calls: int
    """Of each in one pass of the model."""


def find_readers(layers: Mapping[str, nn.Linear], *, run: Callable[[], object]) -> list[Readers]:
    """All layers by what they read, in the order of their first calls.

    `run` passes one batch through the model. A layer that it does not reach stands for itself.
    """
    read: dict[str, list[Tensor]] = {}  # with the tensors, so that no other gets their ids
    with hooked(layers, note=lambda name, given, _: read.setdefault(name, []).append(given)):
        run()
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, tensors in read.items():
        groups.setdefault(tuple(map(id, tensors)), []).append(name)
    reached = [Readers(tuple(names), len(ids)) for ids, names in groups.items()]
    return reached + [Readers((name,), 0) for name in layers if name not in read]
