"""What cuts have left of a model, beside the parts of the uncut one from which it came."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.models.projections import PARTS, name_linears
from limbeck.models.structure import find_submodule

WRITERS = tuple(f"{part}.{names[-1]}" for part, names in PARTS.items())
"""The linear layers whose outputs are those of their parts."""


@dataclass(frozen=True)
class KeptParts:
    """What cuts have left of a model, counted in the uncut one."""

    layers: Sequence[int]
    """Ascending; the first one always stays."""
    channels: Sequence[int]
    """Of the residual stream."""
    rows: Mapping[str, Int[Tensor, " rows"]] = field(default_factory=dict)
    """Of linear layers that lost some of their outputs to a cut of channels or heads."""


@dataclass(frozen=True)
class Span:
    """A block of the cut model, and the uncut blocks in whose place it stands."""

    block: nn.Module
    linears: Mapping[str, nn.Linear]
    sources: Sequence[nn.Module]
    """Its own uncut block, and those behind it that were left out."""
    rows: Mapping[str, Int[Tensor, " rows"]]
    """Of the uncut linear layer of the same name, the outputs that are left."""
    channels: Int[Tensor, " channels"]


def pair_blocks(
    own: Sequence[nn.Module],
    uncut_blocks: Sequence[nn.Module],
    *,
    uncut: PreTrainedModel,
    kept: KeptParts,
) -> Iterator[Span]:
    """Each block of the cut model with those of the uncut one in whose place it stands."""
    names = {id(module): name for name, module in uncut.named_modules()}
    channels = torch.as_tensor(kept.channels, device=uncut.device)
    ends = (*kept.layers[1:], len(uncut_blocks))
    for block, first, end in zip(own, kept.layers, ends, strict=True):
        sources = uncut_blocks[first:end]
        linears = _find_linears(block)
        rows = {}
        for name in linears:
            source = sources[0].get_submodule(name)
            assert isinstance(source, nn.Linear)
            left = kept.rows.get(names[id(source)], torch.arange(source.out_features))
            rows[name] = channels if name in WRITERS else left.to(uncut.device)
        yield Span(block, linears, sources, rows, channels)


def _find_linears(block: nn.Module) -> dict[str, nn.Linear]:
    """The block's projections; of a mixture those of attention only."""
    paths = (f"{part}.{name}" for part, names in PARTS.items() for name in names)
    found = ((name, find_submodule(block, name)) for name in name_linears(block, paths))
    return {name: item for name, item in found if isinstance(item, nn.Linear)}
