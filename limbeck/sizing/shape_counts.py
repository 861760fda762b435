"""The parameters of a dense decoder by shape, each shape once with how often it stands there.

A layer is like every other, so a design is counted in microseconds, however deep. Mixtures have no
such count: no bundle holds one.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from limbeck.contracts.errors import CheckpointError
from limbeck.models.decoder_sizes import DecoderSizes, SizedConfig
from limbeck.sizing.decoders import Parameter, list_decoder_parameters

ShapeKind = Literal["lookup", "head", "matrix", "vector"]
"""A table of which a token reads one row, a table that every logit reads, a weight, a norm."""
Filled = Literal["", "rows", "columns"]
"""Where feed-forward channels are filled up to whole blocks."""


@dataclass(frozen=True)
class ParameterShape:
    """A parameter without its name."""

    kind: ShapeKind
    rows: int
    columns: int
    filled: Filled = ""

    @property
    def numel(self) -> int:
        """Numbers in it."""
        return self.rows * self.columns


ShapeCounts = Counter[ParameterShape]


def count_shapes(config: SizedConfig) -> ShapeCounts:
    """The shapes of a dense decoder's parameters.

    Raises:
        CheckpointError: it is a mixture of experts, or transformers cannot build it.
    """
    if isinstance(config, DecoderSizes):
        one = list_decoder_parameters(dataclasses.replace(config, num_hidden_layers=1)) or []
        layers = config.num_hidden_layers
        times = (layers if item.name.startswith("model.layers.") else 1 for item in one)
        return _count(zip(one, times, strict=True), config)
    # Slow to import: any other architecture is built, without its weights.
    from limbeck.sizing.module_tree import build_parameters

    parameters = list_decoder_parameters(config) or build_parameters(config)
    return _count(((item, 1) for item in parameters), config)


def _count(parameters: Iterable[tuple[Parameter, int]], config: SizedConfig) -> ShapeCounts:
    found: ShapeCounts = Counter()
    for item, times in parameters:
        if len(item.shape) > 2 or ".experts." in item.name:
            raise CheckpointError(
                f"a model of type {config.model_type!r} is no dense decoder ({item.name}), and no "
                "bundle holds another; distil it into a dense student first"
            )
        if len(item.shape) < 2:
            found[ParameterShape("vector", 1, item.shape[0] if item.shape else 1)] += times
            continue
        rows, columns = item.shape
        filled: Filled = ""
        if ".mlp." in item.name:
            filled = "columns" if "down" in item.name else "rows"
        kind: ShapeKind = item.table or "matrix"
        found[ParameterShape(kind, rows, columns, filled)] += times
    return found


def count_parameters(shapes: ShapeCounts) -> int:
    """All numbers."""
    return sum(shape.numel * times for shape, times in shapes.items())


def count_products(shapes: ShapeCounts) -> int:
    """Numbers that each token multiplies by."""
    return sum(
        shape.numel * times for shape, times in shapes.items() if shape.kind in ("head", "matrix")
    )
