"""A dense student's feed-forward layers made of its teacher's most used experts.

Gated experts side by side are one wider gated layer: rows of gate and up concatenated, columns of
down concatenated and scaled by each expert's weight, give exactly the experts' weighted sum
(arXiv:2605.28207). Shared experts, which every token passes, come first, at full weight. Left
out: attention, embeddings and norms (`from_weights.py`).
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.models.structure import find_layers, find_submodule, match_depth

Channels = tuple[Int[Tensor, " channels"], Int[Tensor, " channels"], Float[Tensor, " channels"]]
STACKED = {"gate_up_proj", "down_proj"}


class MergedExperts(TypedDict):
    """What a student's feed-forward layers were made of."""

    experts: list[list[int]]
    """The experts of each layer."""
    gate_weight_ratios: list[float]
    """Their share of the gate's weight in each layer."""
    copied_ratio: float
    """Share of the student's parameters."""


def find_experts(model: PreTrainedModel) -> list[nn.Module | None]:
    """The stacked experts of every layer, None for a dense layer.

    Raises:
        CheckpointError: the model has none, or not in transformers' stacked layout.
    """
    found: list[nn.Module | None] = []
    for block in find_layers(model)[1]:
        experts = find_submodule(block, "mlp.experts")
        names = {} if experts is None else dict(experts.named_parameters(recurse=False))
        found.append(experts if names.keys() >= STACKED else None)
    if not any(item is not None for item in found):
        raise CheckpointError(
            f"{type(model).__name__}: no layer has stacked experts (`mlp.experts.gate_up_proj`), "
            "so none can become a student's feed-forward layer; leave initialize_experts out"
        )
    return found


def check_experts(model: PreTrainedModel) -> None:
    """Refuse a model whose experts cannot become feed-forward layers.

    Raises:
        CheckpointError: it has none, or a gate of their own weighs its shared ones.
    """
    for experts, block in zip(find_experts(model), find_layers(model)[1], strict=True):
        if experts is not None:
            find_shared(block.get_submodule("mlp"))


@torch.no_grad()
def measure_use(
    model: PreTrainedModel, *, batches: Iterable[Batch]
) -> list[Float[Tensor, " experts"] | None]:
    """Each expert's mean gate weight over the batches' tokens, for every layer with experts."""
    layers = find_experts(model)
    uses = [
        None if item is None else torch.zeros(item.get_parameter("down_proj").shape[0])
        for item in layers
    ]
    mask = torch.ones(0, dtype=torch.bool)
    num_tokens = 0

    def add_use(layer: int, _: nn.Module, given: Sequence[Tensor]) -> None:
        picked, weights = given[1], given[2] if len(given) > 2 else None
        if weights is None:  # a fusion of its own weighs them: count them alike
            weights = torch.full(picked.shape, 1.0 / picked.shape[1])
        use = uses[layer]
        assert use is not None
        use.index_add_(0, picked[mask].reshape(-1).cpu(), weights[mask].reshape(-1).float().cpu())

    with ExitStack() as stack:
        for index, experts in enumerate(layers):
            if experts is None:
                continue
            hook = experts.register_forward_pre_hook(partial(add_use, index))
            stack.callback(hook.remove)
        forward = KeptForward(model.eval())
        for batch in batches:
            batch = batch.to(model.device)
            mask = batch.tokens.reshape(-1)
            num_tokens += int(mask.sum())
            forward(batch)
    return [None if use is None else use / max(1, num_tokens) for use in uses]


def pick_channels(
    use: Float[Tensor, " experts"],
    *,
    gate_up: Float[Tensor, "experts twice hidden"],
    down: Float[Tensor, "experts hidden width"],
    num_channels: int,
) -> Channels:
    """Expert, channel and weight of each channel of the student: whole experts by use.

    Weights are the experts' use, scaled so that those taken add up to what the gate gives a token
    on average. Of the last expert, where the width does not divide, the channels of the largest
    norms are taken. Fewer than `num_channels` where the experts hold no more.
    """
    width = down.shape[2]
    order = use.argsort(descending=True, stable=True)[: -(-num_channels // width)]
    weights = use[order] * (use.sum() / use[order].sum().clamp(min=1e-12))
    owners, channels, shares = [], [], []
    for expert, weight in zip(order.tolist(), weights.tolist(), strict=True):
        left = min(width, num_channels - sum(map(len, channels)))
        taken = _strongest(gate_up[expert], down[expert], count=left)
        channels.append(taken)
        owners.append(torch.full((left,), expert))
        shares.append(torch.full((left,), weight))
    if not owners:
        return order, order.clone(), weights
    return torch.cat(owners), torch.cat(channels), torch.cat(shares)


def _strongest(
    gate_up: Float[Tensor, "twice hidden"], down: Float[Tensor, "hidden width"], *, count: int
) -> Int[Tensor, " channels"]:
    """The channels with the largest product of norms, in their order."""
    gate, up = gate_up.chunk(2, dim=0)
    norms = gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)
    return norms.topk(count).indices.sort().values


def find_shared(mlp: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Gate and up stacked, and down, of the experts that every token passes; None without any.

    Raises:
        CheckpointError: a gate of their own weighs them.
    """
    shared = find_submodule(mlp, "shared_expert") or find_submodule(mlp, "shared_experts")
    if shared is None:
        return None
    if find_submodule(mlp, "shared_expert_gate") is not None:
        raise CheckpointError(
            f"{type(mlp).__name__}: a gate weighs its shared expert token by token, which no fixed "
            "weight stands for; leave initialize_experts out"
        )
    gate, up, down = (
        shared.get_parameter(f"{name}.weight").float()
        for name in ("gate_proj", "up_proj", "down_proj")
    )
    return torch.cat([gate, up]), down


@torch.no_grad()
def merge_experts(
    student: PreTrainedModel, *, teacher: PreTrainedModel, batches: Iterable[Batch]
) -> MergedExperts:
    """Fill the student's feed-forward layers from the teacher's most used experts, in place.

    Student layer i of n gets layer ceil(i m / n) of m, as in `copy_matching_weights`. Returns the
    experts of each layer, and their share of the gate's weight.

    Raises:
        CheckpointError: widths, layouts or activations do not fit.
    """
    own_layers, layers = find_layers(student)[1], find_layers(teacher)[1]
    nn.Module.to(teacher, student.device)
    uses = measure_use(teacher, batches=batches)
    nn.Module.to(teacher, "cpu")
    sources = find_experts(teacher)
    taken: list[list[int]] = []
    held: list[float] = []
    copied = 0
    for index, block in enumerate(own_layers):
        depth = match_depth(index + 1, num_layers=len(own_layers), num_sources=len(sources))
        layer = depth - 1
        experts, use = sources[layer], uses[layer]
        mlp = find_submodule(block, "mlp")
        if (
            experts is None
            or use is None
            or mlp is None
            or find_submodule(mlp, "gate_proj") is None
        ):
            continue
        gate_up = experts.get_parameter("gate_up_proj").float()
        down = experts.get_parameter("down_proj").float()
        num_channels, hidden = mlp.get_parameter("gate_proj.weight").shape
        if gate_up.shape[2] != hidden:
            raise CheckpointError(
                f"the teacher's experts have hidden {gate_up.shape[2]}, the student {hidden}; give "
                "the student the teacher's `hidden_size`, or leave initialize_experts out"
            )
        filled = 0
        shared = find_shared(layers[layer].get_submodule("mlp"))
        if shared is not None:
            every = _strongest(*shared, count=min(num_channels, shared[1].shape[1]))
            filled = len(every)
            gate, up = shared[0].chunk(2, dim=0)
            _write(mlp, slice(0, filled), gate=gate[every], up=up[every], down=shared[1].T[every])
        owners, channels, shares = pick_channels(
            use, gate_up=gate_up, down=down, num_channels=num_channels - filled
        )
        gate, up = gate_up.chunk(2, dim=1)
        _write(
            mlp,
            slice(filled, filled + len(owners)),
            gate=gate[owners, channels],
            up=up[owners, channels],
            down=down[owners, :, channels] * shares[:, None],
        )
        copied += 3 * (filled + len(owners)) * hidden
        chosen = owners.unique().tolist()
        taken.append(chosen)
        held.append(float(use[chosen].sum() / use.sum().clamp(min=1e-12)))
    return {
        "experts": taken,
        "gate_weight_ratios": held,
        "copied_ratio": copied / sum(item.numel() for item in student.parameters()),
    }


def _write(mlp: nn.Module, place: slice, *, gate: Tensor, up: Tensor, down: Tensor) -> None:
    """Put channels, one a row, into a gated layer."""
    mlp.get_parameter("gate_proj.weight")[place] = gate
    mlp.get_parameter("up_proj.weight")[place] = up
    mlp.get_parameter("down_proj.weight")[:, place] = down.T
