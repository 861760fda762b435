"""Mean products of what linear layers read, over batches: the Hessians of their squared errors."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor, nn

from limbeck.models.observation import select_rows

Layers = Mapping[str, nn.Linear]


class MeanProducts:
    """The mean of x x^T over the inputs x of a layer, padding left out."""

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0
        self.num_tokens = 0

    def add(
        self, given: Float[Tensor, "*rows columns"], *, tokens: Bool[Tensor, "batch tokens"]
    ) -> None:
        """Take in what the layer read in one batch."""
        rows = select_rows(given, tokens).float()
        self._total = self._total + (rows.t() @ rows).double()
        self.num_tokens += len(rows)

    def mean(self) -> Float[Tensor, "columns columns"]:
        """In float64, of at least one token."""
        assert isinstance(self._total, Tensor)
        return self._total / self.num_tokens


@contextmanager
def hooked(layers: Layers, *, note: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within, each layer's name and input are handed on whenever it is called."""

    def make(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: note(name, inputs[0])

    handles = [layer.register_forward_pre_hook(make(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Readers:
    """Linear layers that read the very same tensors, so that one measurement serves all."""

    names: tuple[str, ...]
    num_calls: int
    """Of each in one pass of the model."""


def find_readers(layers: Layers, *, run: Callable[[], object]) -> list[Readers]:
    """All layers by what they read, in the order of their first calls.

    `run` passes one batch through the model. A layer that it does not reach stands for itself.
    """
    read: dict[str, list[Tensor]] = {}  # with the tensors, so that no other gets their ids
    with hooked(layers, note=lambda name, given: read.setdefault(name, []).append(given)):
        run()
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, tensors in read.items():
        groups.setdefault(tuple(map(id, tensors)), []).append(name)
    reached = [Readers(tuple(names), len(ids)) for ids, names in groups.items()]
    return reached + [Readers((name,), 0) for name in layers if name not in read]
