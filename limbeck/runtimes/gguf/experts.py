"""The experts of a sparse layer as a GGUF file holds them: one tensor for each projection."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from limbeck.contracts.errors import CheckpointError
from limbeck.runtimes.mixture import Mixture


@runtime_checkable
class FloatSource(Protocol):
    """Where the numbers come from."""

    def has(self, name: str) -> bool:
        """Whether there is such a tensor, not taken yet."""
        ...

    def take(self, name: str, *, shape: list[int]) -> np.ndarray:
        """A tensor of this shape."""
        ...


Experts = Float[np.ndarray, "experts out channels"]


def list_experts(
    block: str, *, mixture: Mixture, hidden_size: int, tensors: FloatSource
) -> Iterator[tuple[str, tuple[int, int, int], Callable[[], Experts]]]:
    """Name, shape and numbers of the gates, ups and downs, to be made in this order."""
    names, num, width = mixture.names, mixture.num_experts, mixture.width
    shapes = {
        names.gate: (num, width, hidden_size),
        names.up: (num, width, hidden_size),
        names.down: (num, hidden_size, width),
    }
    taken: dict[str, Experts] = {}

    def take(name: str) -> Experts:
        fused = {names.gate: "gate_up_proj", names.up: "gate_up_proj", names.down: "down_proj"}
        stored = f"{block}.experts.{fused[name]}"
        if name not in taken and tensors.has(stored):
            if name == names.down:
                return _take(stored, shape=shapes[name], tensors=tensors)
            both = _take(stored, shape=(num, 2 * width, hidden_size), tensors=tensors)
            taken.update({names.gate: both[:, :width], names.up: both[:, width:]})
        if name in taken:
            return taken.pop(name)
        return _stack(f"{block}.experts", name, shapes=shapes, tensors=tensors)

    for name, shape in shapes.items():
        yield f"{block}.experts.{name}.weight", shape, lambda name=name: take(name)


def _stack(
    module: str, name: str, *, shapes: Mapping[str, tuple[int, int, int]], tensors: FloatSource
) -> Experts:
    num, *shape = shapes[name]
    parts = [
        _take(f"{module}.{number}.{name}.weight", shape=tuple(shape), tensors=tensors)
        for number in range(num)
    ]
    return np.stack(parts)


def _take(name: str, *, shape: tuple[int, ...], tensors: FloatSource) -> np.ndarray:
    array = tensors.take(name, shape=list(shape))
    if array.dtype != np.float32:
        raise CheckpointError(
            f"tensor {name!r} holds {array.dtype}: experts are exported from floats only"
        )
    return array
