"""Training by a DeepSpeed engine: ZeRO divides optimizer, gradients and, at stage 3, weights.

The engine exchanges, clips and steps by itself at the gradient accumulation boundary, so the count
that the sum is divided by must be set before. Its optimizer works on flat parts of all parameters,
whose states are read and set by DeepSpeed's own functions.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional

from limbeck.contracts.errors import TrainingError
from limbeck.env.ranks import process_index
from limbeck.models.batch import Batch
from limbeck.training.distributed.ranks import RankMicrobatch
from limbeck.training.distributed.sharded_state import OptimizerState
from limbeck.training.optimizer_step import Stepper, Sums

MOMENTS = ("exp_avg", "exp_avg_sq")
Untyped = Any
"""An object of DeepSpeed, which is imported only where a launcher starts it."""


def set_up_engine(accelerator: Accelerator, *, max_grad_norm: float) -> None:
    """Configure DeepSpeed as the loop needs it: how to clip, and single micro-batches."""
    plugin: Untyped = accelerator.state.deepspeed_plugin
    plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": accelerator.num_processes,
        "gradient_clipping": max_grad_norm,
    }


class DeepSpeedStepper(Stepper):
    """Steps of a DeepSpeed engine."""

    def _start(self) -> None:
        self.expected_count = 0

    def _differentiate(
        self, step: int, mine: Sequence[RankMicrobatch], *, batches: Sequence[Batch]
    ) -> list[Sums]:
        engine: Untyped = self.model_with_loss
        self.expected_count = sum(int(batch.kept.sum()) for batch in batches)
        # The processes' gradients are averaged, and their sum is needed.
        factor = self.accelerator.num_processes / max(1, self.expected_count)
        sums = []
        for place, microbatch in enumerate(mine):
            loss = self.compute_loss(step, microbatch)
            engine.set_gradient_accumulation_boundary(place == len(mine) - 1)
            engine.backward(loss.sum * factor)
            sums.append(Sums.of(loss))
        return sums

    def _clip(self, count: int) -> float:
        if count != self.expected_count:
            raise TrainingError(
                f"the objective divides by {count}, the batches carry {self.expected_count} "
                "labels, and DeepSpeed needs the count beforehand; use "
                "recipes/accelerate/fsdp2.yaml"
            )
        engine: Untyped = self.model_with_loss
        engine.step()
        return float(engine.get_global_grad_norm())

    def close(self) -> None:
        """Nothing: the accelerator frees the engine."""


@torch.no_grad()
def gather_engine(optimizer: Untyped, *, parameters: Sequence[Tensor]) -> OptimizerState:
    """Each parameter's whole optimizer state, as AdamW alone would hold it, for the first process.

    All processes have to call it. `parameters` are the trained ones in the optimizer's order, from
    before it was divided.
    """
    linkage = importlib.import_module("deepspeed.utils")
    (step,) = {float(item["step"]) for item in optimizer.optimizer.state.values()}
    if not hasattr(parameters[0], "ds_id"):
        _link(optimizer)
    whole: OptimizerState = {}
    for place, item in enumerate(parameters):
        moments = {key: linkage.safe_get_full_optimizer_state(item, key).cpu() for key in MOMENTS}
        if process_index() == 0:
            whole[place] = {"step": torch.tensor(step), **moments}
    return whole


@torch.no_grad()
def scatter_engine(
    optimizer: Untyped,
    state: OptimizerState,
    *,
    parameters: Sequence[Tensor],
    accelerator: Accelerator,
) -> None:
    """Give each process its part of a whole optimizer state."""
    linkage = importlib.import_module("deepspeed.utils")
    divides_weights = hasattr(parameters[0], "ds_id")
    flats = (
        optimizer.fp32_partitioned_groups_flat
        if divides_weights
        else optimizer.single_partition_of_fp32_groups
    )
    for flat in flats:
        optimizer.optimizer.state[flat] = {
            "step": state[0]["step"].clone().to(flat.device),
            **{key: torch.zeros_like(flat) for key in MOMENTS},
        }
    if not divides_weights:
        _link(optimizer)
    for place, item in enumerate(parameters):
        for key in MOMENTS:
            value = state[place][key].to(flats[0].device)
            if divides_weights:
                own = linkage.safe_get_local_optimizer_state(item, key).numel()
                padded = functional.pad(
                    value.flatten(), (0, own * accelerator.num_processes - value.numel())
                )
                part = padded.narrow(0, own * accelerator.process_index, own)
                linkage.safe_set_local_optimizer_state(item, part, key)
            else:
                linkage.safe_set_full_optimizer_state(item, value, key)


def _link(optimizer: Untyped) -> None:
    """Link every group's state at stages 1 and 2; DeepSpeed links the first group's only."""
    optimizer._hp_optimizer_states_linked = False
    optimizer._lazy_init_hp_params_optimizer_state()
