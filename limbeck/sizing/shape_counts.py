"""The parameters of a dense decoder by shape, each shape once with how often it stands there.

A layer is like every other but for the bits that llama.cpp's mixes give it, so a design is counted
in microseconds, however deep. Left out: mixtures of experts.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from limbeck.contracts.errors import CheckpointError
from limbeck.models.decoder_sizes import DecoderSizes, SizedConfig
from limbeck.models.gguf.types import MatrixRole, gets_more_bits
from limbeck.sizing.decoders import Parameter, list_decoder_parameters

ShapeKind = MatrixRole | Literal["vector"]
"""A table of which a token reads one row, a table that every logit reads, a weight, one to which
llama.cpp's mixes give more bits, a norm."""
SENSITIVE = (".v_proj.weight", ".qkv_proj.weight", ".down_proj.weight")
"""Weights of which those mixes give some layers' more bits."""
LAYERS = "model.layers."
Filled = Literal["", "rows", "halves", "columns"]
"""Where feed-forward channels are filled up to whole blocks: of two matrices in one, in each."""


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
        every = range(config.num_hidden_layers)
        return _count(
            ((item, every if item.name.startswith(LAYERS) else ()) for item in one), config
        )
    # Slow to import: any other architecture is built, without its weights.
    from limbeck.sizing.module_tree import build_parameters

    parameters = list_decoder_parameters(config) or build_parameters(config)
    return _count(((item, _find_layer(item)) for item in parameters), config)


def _find_layer(parameter: Parameter) -> Sequence[int]:
    number = parameter.name.removeprefix(LAYERS).partition(".")[0]
    return [int(number)] if number.isdigit() else []


def _count(
    parameters: Iterable[tuple[Parameter, Sequence[int]]], config: SizedConfig
) -> ShapeCounts:
    """Each parameter once for each of its layers; once where it is in none."""
    found: ShapeCounts = Counter()
    num_layers = config.get_text_config().num_hidden_layers
    for item, layers in parameters:
        if len(item.shape) > 2 or ".experts." in item.name:
            raise CheckpointError(
                f"a model of type {config.model_type!r} is no dense decoder ({item.name}), and "
                "files of others are not sized; distil it into a dense student first"
            )
        if len(item.shape) < 2:
            shape = ParameterShape("vector", 1, item.shape[0] if item.shape else 1)
            found[shape] += len(layers) or 1
            continue
        rows, columns = item.shape
        filled: Filled = ""
        if ".mlp." in item.name:
            filled = "columns" if "down" in item.name else "rows"
            filled = "halves" if "gate_up" in item.name else filled
        kinds: list[ShapeKind] = [item.table or "matrix"]
        if layers and item.name.endswith(SENSITIVE):
            precise = (gets_more_bits(layer, num_layers=num_layers) for layer in layers)
            kinds = ["sensitive" if has_more else "matrix" for has_more in precise]
        elif layers:
            kinds *= len(layers)
        for kind, times in Counter(kinds).items():
            found[ParameterShape(kind, rows, columns, filled)] += times
    return found


def count_parameters(shapes: ShapeCounts) -> int:
    """All numbers."""
    return sum(shape.numel * times for shape, times in shapes.items())


def count_products(shapes: ShapeCounts) -> int:
    """Numbers that each token multiplies by."""
    return sum(
        shape.numel * times
        for shape, times in shapes.items()
        if shape.kind not in ("lookup", "vector")
    )
