"""Experts of a mixture that can be cut: where they are, what each adds, and routing without some.

An expert goes with its row of the router. Left out: experts in groups of which a token picks some
(DeepSeek-V3), whose groups would have to stay equal, and shared experts, which every token passes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.models.moe.layers import Routing
from limbeck.models.structure import Groups, TensorSlice, find_layers, find_submodule

STACKED = ("gate_up_proj", "down_proj")
"""Weights of all experts of a layer, the expert as the first axis."""
ADVICE = "experts can be cut of mixtures built like Qwen3-MoE, Mixtral and OLMoE"


def find_experts(model: PreTrainedModel) -> tuple[Groups, ...]:
    """The routed experts of every sparse layer: {row of the router, stacked matrices}.

    Raises:
        CheckpointError: no layer routes to stacked experts in the standard names, or cutting some
            would change how the others are picked.
    """
    name = type(model).__name__
    num_sets = getattr(model.config.get_text_config(), "n_group", None) or 1
    if num_sets > 1:
        raise CheckpointError(
            f"{name}: a token picks from some of {num_sets} groups of experts (n_group); cutting "
            f"experts would change the groups; {ADVICE}, which have one"
        )
    prefix, layers = find_layers(model)
    found = [
        _list_parts(model, where=f"{prefix}.{layer}.mlp", layer=layer)
        for layer, block in enumerate(layers)
        if find_submodule(block, "mlp.experts") is not None
    ]
    if not found:
        raise CheckpointError(f"{name}: no layer has `mlp.experts`; {ADVICE}")
    counts = sorted({groups.num_groups for groups in found})
    if len(counts) > 1:
        raise CheckpointError(f"{name}: layers have {counts} experts; {ADVICE}, with one number")
    return tuple(found)


def _list_parts(model: PreTrainedModel, *, where: str, layer: int) -> Groups:
    gate, experts = (find_submodule(model, f"{where}.{name}") for name in ("gate", "experts"))
    stacked = {} if experts is None else dict(experts.named_parameters())
    router = {} if gate is None else dict(gate.named_parameters())
    shapes = {key: tuple(value.shape) for key, value in (stacked | router).items()}
    num = len(stacked[STACKED[0]]) if set(stacked) == set(STACKED) else 0
    if not num or set(router) != {"weight"} or len(router["weight"]) != num:
        raise CheckpointError(
            f"{where}: expected stacked {' and '.join(STACKED)} and a router with one row of "
            f"`weight` for each expert, found {shapes}; {ADVICE}"
        )
    assert gate is not None
    biases = [key for key, value in gate.named_buffers() if value.shape == (num,)]
    names = [f"gate.{key}" for key in ("weight", *biases)] + [f"experts.{key}" for key in STACKED]
    parts = tuple(TensorSlice(f"{where}.{key}", 0, 1) for key in names)
    return Groups("experts", layer, num, parts)


def _find_block(groups: Groups) -> str:
    return groups.parts[0].parameter.removesuffix(".gate.weight")


def sum_by_expert(
    values: Float[Tensor, "*tokens"], *, picked: Int[Tensor, "*tokens"], num_experts: int
) -> tuple[Float[Tensor, " experts"], Int[Tensor, " experts"]]:
    """The sum of what each expert's tokens have, and how many tokens that is."""
    flat = picked.reshape(-1)
    sums = torch.zeros(num_experts, device=values.device, dtype=values.dtype)
    return (
        sums.index_add_(0, flat, values.reshape(-1)),
        torch.bincount(flat, minlength=num_experts),
    )


@torch.no_grad()
def measure_routed_norms(
    model: PreTrainedModel, *, layers: Sequence[Groups], batches: Iterable[Batch]
) -> dict[Groups, Float[Tensor, " experts"]]:
    """For each expert, router weight times norm of its output, in the mean over its tokens.

    Zero for an expert that no token is routed to.
    """
    sums = {groups: torch.zeros(groups.num_groups, dtype=torch.float64) for groups in layers}
    counts = {groups: torch.zeros(groups.num_groups, dtype=torch.int64) for groups in layers}
    tokens = torch.empty(0, dtype=torch.bool)

    def add(groups: Groups, gate: nn.Module, inputs: tuple[Tensor, ...], made: object) -> None:
        picked, weights = read_routing(made, where=_find_block(groups))
        experts = model.get_submodule(f"{_find_block(groups)}.experts")
        hidden = inputs[0].reshape(len(picked), -1)
        norms = [
            experts(hidden, picked[:, k : k + 1], torch.ones_like(weights[:, :1])).norm(dim=-1)
            for k in range(picked.shape[1])
        ]
        routed = weights.double() * torch.stack(norms, dim=1).double()
        kept = tokens.reshape(-1)
        total, count = sum_by_expert(
            routed[kept], picked=picked[kept], num_experts=groups.num_groups
        )
        sums[groups] += total.cpu()
        counts[groups] += count.cpu()

    with ExitStack() as stack:
        for groups in layers:
            gate = model.get_submodule(f"{_find_block(groups)}.gate")
            stack.callback(gate.register_forward_hook(partial(add, groups)).remove)
        for batch in batches:
            batch = batch.to(model.device)
            tokens = batch.tokens
            KeptForward(model)(batch)
    return {groups: (sums[groups] / counts[groups].clamp_min(1)).float() for groups in layers}


def read_routing(
    made: object, *, where: str
) -> tuple[Int[Tensor, "tokens picks"], Float[Tensor, "tokens picks"]]:
    """What a router returned: the experts of each token, and their weights.

    Raises:
        CheckpointError: it returned something else.
    """
    if isinstance(made, Routing):
        return made.picked, made.weights
    if isinstance(made, tuple) and len(made) == 3:
        _, weights, picked = made
        if picked.shape == weights.shape and not picked.is_floating_point():
            return picked, weights
    raise CheckpointError(
        f"{where}.gate: returns no (logits, weights, experts) of each token; {ADVICE}"
    )


@contextmanager
def route_to(model: PreTrainedModel, *, kept: Mapping[Groups, Sequence[int]]) -> Iterator[None]:
    """The model whose routers know these experts only, for as long as the block runs."""
    with ExitStack() as stack:
        for groups, indices in kept.items():
            where, index = _find_block(groups), torch.tensor(list(indices), device=model.device)
            gate = model.get_submodule(f"{where}.gate")
            owned = {part.parameter.removeprefix(f"{where}.gate.") for part in groups.parts}
            for name, tensor in [*gate.named_parameters(), *gate.named_buffers()]:
                if name in owned:
                    stack.callback(setattr, tensor, "data", tensor.data)
                    tensor.data = tensor.data[index]
            if "num_experts" in vars(gate):
                stack.callback(setattr, gate, "num_experts", groups.num_groups)
                gate.num_experts = len(indices)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
            experts = model.get_submodule(f"{where}.experts")
            stack.callback(experts.register_forward_pre_hook(partial(_rename, index)).remove)
        yield


def _rename(
    index: Int[Tensor, " kept"], module: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """The places among the kept experts become those among all."""
    hidden, picked, *weights = inputs
    return (hidden, index[picked], *weights)
