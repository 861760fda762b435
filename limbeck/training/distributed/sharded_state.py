"""Whole states out of parts, and parts out of whole states: for saving, and for other processes.

A state is always written whole, in the form that one process alone would write, so that any number
of processes, sharded in any way, goes on from it.
"""

import importlib

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from limbeck.env.ranks import process_index
from limbeck.training.distributed.ranks import Sharding
from limbeck.training.train_state import StateDict

OptimizerState = dict[int, dict[str, Tensor]]
"""The tensors of each parameter, by its place among the trained ones."""


@torch.no_grad()
def gather_weights(module: nn.Module, *, sharding: Sharding) -> dict[str, Tensor]:
    """Every entry of a module's state, whole and on the CPU, for the first process.

    All processes have to call it; the others get nothing, for a machine may hold many of them.
    """
    whole = {}
    for name, item in module.state_dict(keep_vars=True).items():
        if hasattr(item, "ds_id") and sharding == "zero":
            zero = importlib.import_module("deepspeed").zero
            with zero.GatheredParameters([item]):
                _add_on_rank0(whole, name, item.detach().clone())
        else:
            _add_on_rank0(whole, name, item.detach())
    return whole


@torch.no_grad()
def gather_optimizer(optimizer: Optimizer) -> OptimizerState:
    """Each parameter's whole optimizer state, by its place, for the first process.

    All processes have to call it.
    """
    whole: OptimizerState = {}
    for place, values in optimizer.state_dict()["state"].items():
        whole[place] = {}
        for name, item in values.items():
            _add_on_rank0(whole[place], name, item)
    return whole


def _add_on_rank0(whole: dict[str, Tensor], name: str, item: Tensor) -> None:
    """Add one entry on the first process; all processes take part in gathering it."""
    entire = item.full_tensor() if isinstance(item, DTensor) else item
    if process_index() == 0:
        whole[name] = entire.cpu()


@torch.no_grad()
def scatter_optimizer(optimizer: Optimizer, state: StateDict) -> None:
    """Load a whole state into an optimizer whose parameters may be in parts."""
    parameters = [item for group in optimizer.param_groups for item in group["params"]]
    parts = {
        place: {name: _scatter(item, like=parameters[place]) for name, item in values.items()}
        for place, values in state["state"].items()
    }
    optimizer.load_state_dict({"state": parts, "param_groups": state["param_groups"]})


def _scatter(item: Tensor, *, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor) or item.shape != like.shape:
        return item
    return distribute_tensor(item.to(like.device), like.device_mesh, like.placements)
