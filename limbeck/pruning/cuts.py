"""Cuts of every kind, each compared with the model in which the same parts are masked."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from limbeck.contracts.parity import LogitDifference, compare_logits
from limbeck.models.batch import Batch
from limbeck.models.logit_parity import compare_models, compute_logits, tolerance_of
from limbeck.models.structure import find_layers
from limbeck.pruning.allocation import KeptGroups
from limbeck.pruning.depth import bypass, cut_layers
from limbeck.pruning.experts import route_to
from limbeck.pruning.group_lasso import count_zero
from limbeck.pruning.surgery import cut, mask
from limbeck.pruning.width import Stream, cut_stream, mask_stream, measure_kept_norms


class CutModel(NamedTuple):
    """A smaller model, and what the cut took."""

    model: PreTrainedModel
    metrics: dict[str, object]


def cut_groups(
    model: PreTrainedModel, *, kept: KeptGroups, input_ids: Int[Tensor, "prompts tokens"]
) -> CutModel:
    """The model without the other channels and heads; the given one is masked in place."""
    zero = {groups: count_zero(model, groups=groups) for groups in kept}
    removed = mask(model, kept=kept)
    smaller = cut(model, kept=kept)
    difference = compare_models(model, smaller, input_ids=input_ids)
    _check(difference, model=model, what="channels and heads")
    metrics: dict[str, object] = {
        "norm_removed_ratio": removed,
        "parity_error": difference.figure("max_logit_difference / max_logit"),
    }
    for kind in sorted({groups.kind for groups in kept}):
        chosen = [groups for groups in kept if groups.kind == kind]
        total = sum(groups.num_groups for groups in chosen)
        metrics[f"{kind}_before"] = chosen[0].num_groups
        metrics[f"{kind}_kept"] = len(kept[chosen[0]])
        metrics[f"{kind}_cut_ratio"] = 1 - sum(len(kept[groups]) for groups in chosen) / total
        metrics[f"{kind}_zero_ratio"] = sum(zero[groups] for groups in chosen) / total
    return CutModel(smaller, metrics)


def cut_experts(
    model: PreTrainedModel, *, kept: KeptGroups, input_ids: Int[Tensor, "prompts tokens"]
) -> CutModel:
    """The mixture without the other experts, and without their rows of the router."""
    smaller = cut(model, kept=kept)
    with route_to(model, kept=kept):
        difference = compare_models(model, smaller, input_ids=input_ids)
    _check(difference, model=model, what="experts")
    groups, stay = next(iter(kept.items()))
    metrics: dict[str, object] = {
        "experts_before": groups.num_groups,
        "experts_kept": len(stay),
        "experts_cut_ratio": 1 - len(stay) / groups.num_groups,
    }
    return CutModel(smaller, metrics)


def cut_depth(
    model: PreTrainedModel, *, kept: Sequence[int], input_ids: Int[Tensor, "prompts tokens"]
) -> CutModel:
    """The model of these layers only."""
    num_layers = len(find_layers(model)[1])
    gone = [index for index in range(num_layers) if index not in kept]
    with bypass(model, layers=gone):
        expected = compute_logits(model, input_ids=input_ids)
    smaller = cut_layers(model, kept=kept)
    difference = compare_logits([(expected, compute_logits(smaller, input_ids=input_ids))])
    _check(difference, model=model, what="layers")
    metrics: dict[str, object] = {
        "layers_before": num_layers,
        "layers_kept": list(kept),
        "layers_cut_ratio": len(gone) / num_layers,
    }
    return CutModel(smaller, metrics)


def cut_width(
    model: PreTrainedModel,
    *,
    stream: Stream,
    kept: Sequence[int],
    batches: Iterable[Batch],
    input_ids: Int[Tensor, "prompts tokens"],
) -> CutModel:
    """The model with a narrower residual stream; the given one is masked in place."""
    norms = measure_kept_norms(model, stream=stream, kept=kept, batches=batches)
    mask_stream(model, stream=stream, kept=kept, kept_norms=norms)
    smaller = cut_stream(model, stream=stream, kept=kept)
    _check(compare_models(model, smaller, input_ids=input_ids), model=model, what="width")
    metrics: dict[str, object] = {
        "hidden_before": stream.width,
        "hidden_kept": len(kept),
        "hidden_cut_ratio": 1 - len(kept) / stream.width,
    }
    return CutModel(smaller, metrics)


def _check(difference: LogitDifference, *, model: PreTrainedModel, what: str) -> None:
    difference.check(
        tolerance_of(model),
        fault=f"the cut model ({what}) differs from the masked one",
        advice=f"{type(model).__name__} cannot be cut so.",
    )
