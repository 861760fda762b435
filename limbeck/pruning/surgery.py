"""Masking groups and cutting them out: the cut model is smaller, and answers as the masked one."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.models.config import GroupKind
from limbeck.models.structure import Groups, view_groups
from limbeck.pruning.allocation import KeptGroups
from limbeck.pruning.rebuild import rebuild
from limbeck.pruning.shapes import describe_cut


@torch.no_grad()
def mask(model: PreTrainedModel, *, kept: KeptGroups) -> float:
    """Zero every other group, in place; the share of the groups' squared norm that this removes."""
    removed = total = 0.0
    for groups, indices in kept.items():
        gone = _find_gone(groups, indices)
        for part in groups.parts:
            parameter = model.get_parameter(part.parameter)
            view = view_groups(parameter, part=part, num_groups=groups.num_groups)
            squares = view.double().square().flatten(1).sum(dim=1).cpu()
            removed += float(squares[gone].sum())
            total += float(squares.sum())
            view[gone.to(view.device)] = 0.0
    return removed / total if total else 0.0


@torch.no_grad()
def cut(model: PreTrainedModel, *, kept: KeptGroups) -> PreTrainedModel:
    """A new model without the other groups, in the same architecture; the old one is unchanged.

    It is built from its own config, so that a saved copy loads in plain transformers.

    Raises:
        CheckpointError: layers keep different numbers, or the architecture has further parameters
            that depend on the widths.
    """
    config = describe_cut(model.config, num_kept=_count_kept(kept))
    tensors = dict(model.state_dict())
    for groups, indices in kept.items():
        for name, axis in {part.parameter: part.axis for part in groups.parts}.items():
            num_places = tensors[name].shape[axis]
            stay = _find_places(groups, indices, parameter=name, num_places=num_places)
            tensors[name] = tensors[name].index_select(axis, stay.to(tensors[name].device))
    fault = "cannot be cut, further parameters depend on the widths"
    return rebuild(model, config=config, tensors=tensors, fault=fault)


def find_rows(model: PreTrainedModel, *, kept: KeptGroups) -> dict[str, Int[Tensor, " rows"]]:
    """Of every linear layer that loses outputs, by its name: which of them stay."""
    rows = {}
    for groups, indices in kept.items():
        names = {part.parameter for part in groups.parts if part.axis == 0}
        for name in sorted(names):
            layer, _, kind = name.rpartition(".")
            if kind == "weight":
                num_places = len(model.get_parameter(name))
                rows[layer] = _find_places(groups, indices, parameter=name, num_places=num_places)
    return rows


def _find_gone(groups: Groups, indices: Sequence[int]) -> Bool[Tensor, " groups"]:
    """The groups that are not among those kept."""
    gone = torch.ones(groups.num_groups, dtype=torch.bool)
    gone[list(indices)] = False
    return gone


def _find_places(
    groups: Groups, indices: Sequence[int], *, parameter: str, num_places: int
) -> Int[Tensor, " kept"]:
    """The rows or columns of a parameter that stay, all its parts together."""
    stay = torch.ones(num_places, dtype=torch.bool)
    gone = _find_gone(groups, indices)
    for part in groups.parts:
        if part.parameter == parameter:
            run = view_groups(stay, part=replace(part, axis=0), num_groups=groups.num_groups)
            run[gone] = False
    return stay.nonzero().flatten()


def _count_kept(kept: KeptGroups) -> dict[GroupKind, int]:
    """How many groups of each kind every layer keeps."""
    num_kept: dict[GroupKind, int] = {}
    kinds: set[GroupKind] = {groups.kind for groups in kept}
    for kind in kinds:
        counts = {len(indices) for groups, indices in kept.items() if groups.kind == kind}
        if len(counts) > 1:
            raise CheckpointError(
                f"layers keep {sorted(counts)} {kind}; a transformers config holds one number for "
                "all layers, so keep equally many in each"
            )
        (num_kept[kind],) = counts
    return num_kept
