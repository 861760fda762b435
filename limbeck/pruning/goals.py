"""What layers of a cut model should make, by what the uncut one makes of the same tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from limbeck.models.block_by_block import BlockByBlock
from limbeck.models.observation import hooked, select_rows
from limbeck.pruning.kept_parts import WRITERS, Span

ADDED_TOLERANCE = 1e-3
"""Of the length of what a block adds to the residual stream: sums of float32 differ by less."""


class _Observed(NamedTuple):
    """What a module read and made at the tokens of a batch, padding left out."""

    given: Float[Tensor, "tokens _"]
    made: Float[Tensor, "tokens _"]


def _observe(
    modules: Mapping[str, nn.Module], *, passes: BlockByBlock, index: int, stop_after: nn.Module
) -> dict[str, _Observed]:
    tokens = passes.batches[index].tokens
    found: dict[str, _Observed] = {}

    def note(name: str, given: Tensor, made: Tensor) -> None:
        found[name] = _Observed(*(select_rows(item, tokens).float() for item in (given, made)))

    with hooked(modules, note=note):
        passes.run(index, stop_after=stop_after)
    return found


def find_added(span: Span, *, passes: BlockByBlock) -> frozenset[str]:
    """The linear layers whose outputs the uncut block adds to the residual stream as they are.

    None where the stream and the parts that no other part reads do not add up to what it gives.
    """
    block = span.sources[0]
    parts = {
        name: item for name, item in block.named_children() if any(True for _ in item.parameters())
    }
    read: dict[int, Tensor] = {}  # with the tensors, so that no other gets their ids
    made: dict[str, Tensor] = {}

    def note(name: str, given: Tensor, output: Tensor) -> None:
        read[id(given)] = given
        made[name] = output

    writers = {name: block.get_submodule(name) for name in WRITERS if name in span.linears}
    with hooked({**parts, **writers, "": block}, note=note):
        given = _observe({"block": block}, passes=passes, index=0, stop_after=block)["block"]
    whole = made.pop("")
    added = {
        name: item
        for name, item in made.items()
        if name in parts and id(item) not in read and item.shape == whole.shape
    }
    tokens = passes.batches[0].tokens
    total = given.given + sum(item[tokens] for item in added.values())
    if (total - given.made).norm() > ADDED_TOLERANCE * (given.made - given.given).norm():
        return frozenset()
    return frozenset(
        name
        for name in writers
        if (part := name.partition(".")[0]) in added and torch.equal(made[name], added[part])
    )


@dataclass(frozen=True)
class Goal:
    """What the uncut model reads and makes at the tokens of a batch."""

    given: Mapping[str, Float[Tensor, "tokens _"]]
    """What the first of the layers reads that read the same."""
    stream: Mapping[str, Float[Tensor, "tokens channels"]]
    """The kept channels of the residual stream, behind layers that add to it."""


def find_goals(
    turns: Sequence[Sequence[str]],
    *,
    span: Span,
    passes: BlockByBlock,
    index: int,
    in_stream: frozenset[str],
) -> Goal:
    """What the uncut model reads and makes at the tokens of a batch, where a block of it is cut.

    `turns` are the names of layers that read the same; those of `in_stream` add to the stream.
    """
    own, last = span.sources[0], span.sources[-1]
    linears = {names[0]: own.get_submodule(names[0]) for names in turns}
    observed = _observe(
        {**linears, "block": own, "after": last}, passes=passes, index=index, stop_after=last
    )
    stream = {
        name: _find_stream(name, observed=observed)[:, span.channels]
        for name in linears
        if name in in_stream
    }
    return Goal({name: observed[name].given for name in linears if name not in in_stream}, stream)


def compare(
    names: Sequence[str],
    *,
    span: Span,
    passes: BlockByBlock,
    index: int,
    goal: Goal,
    in_stream: frozenset[str],
) -> tuple[Float[Tensor, "tokens columns"], Float[Tensor, "tokens rows"]]:
    """What layers read, all the same, and what their outputs, side by side, should have more."""
    layers = {name: span.linears[name] for name in names}
    first, last = names[0], names[-1]
    observed = _observe(
        {**layers, "block": span.block, "after": span.block},
        passes=passes,
        index=index,
        stop_after=span.block if first in in_stream else layers[last],
    )
    given = observed[first].given
    if first in in_stream:
        return given, goal.stream[first] - _find_stream(first, observed=observed)
    missing = []
    for name in names:
        source, rows = span.sources[0].get_submodule(name), span.rows[name]
        assert isinstance(source, nn.Linear)
        bias = None if source.bias is None else source.bias[rows].float()
        expected = functional.linear(goal.given[first], source.weight[rows].float(), bias)
        missing.append(expected - observed[name].made)
    return given, torch.cat(missing, dim=1)


def _find_stream(
    name: str, *, observed: Mapping[str, _Observed]
) -> Float[Tensor, "tokens channels"]:
    """The residual stream behind a layer that adds to it."""
    if name == WRITERS[-1]:
        return observed["after"].made
    return observed["block"].given + observed[name].made
