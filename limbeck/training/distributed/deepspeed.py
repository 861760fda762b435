"""Training by a DeepSpeed engine: ZeRO divides optimizer, gradients and, at stage 3, weights.

The engine exchanges, clips and steps by itself when it is told the last micro-batch of a step, so
it has to know beforehand what the sum will be divided by. Its optimizer works on flat parts of all
parameters, whose states are read and set by DeepSpeed's own functions.
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional

from limbeck.contracts.errors import TrainingError
from limbeck.env.ranks import process_index
from limbeck.models.batch import Batch
from limbeck.training.distributed.ranks import RankMicrobatch
from limbeck.training.optimizer_step import Stepper, Sums

MOMENTS = ("exp_avg", "exp_avg_sq")


def set_up_engine(accelerator: Accelerator, *, max_grad_norm: float) -> None:
    """Tell DeepSpeed what the loop decides: how to clip, and that it gives single micro-batches."""
    plugin: Any = accelerator.state.deepspeed_plugin
    plugin.deepspeed_config |= {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "train_batch_size": accelerator.num_processes,
        "gradient_clipping": max_grad_norm,
    }


class DeepSpeedStepper(Stepper):
    """Steps of a DeepSpeed engine."""

    promised = 0

    def _differentiate(
        self, step: int, mine: Sequence[RankMicrobatch], *, batches: Sequence[Batch]
    ) -> list[Sums]:
        engine: Any = self.judged
        self.promised = sum(int(batch.kept.sum()) for batch in batches)
        # The processes' gradients are averaged, wanted is their sum.
        factor = self.accelerator.num_processes / max(1, self.promised)
        sums = []
        for place, dealt in enumerate(mine):
            loss = self.judge(step, dealt)
            engine.set_gradient_accumulation_boundary(place == len(mine) - 1)
            engine.backward(loss.sum * factor)
            sums.append(Sums.of(loss))
        return sums

    def _clip(self, count: int) -> float:
        if count != self.promised:
            raise TrainingError(
                f"the objective divides by {count}, the batches carry {self.promised} labels, and "
                "DeepSpeed must know the count beforehand; use recipes/accelerate/fsdp2.yaml"
            )
        engine: Any = self.judged
        engine.step()
        return float(engine.get_global_grad_norm())

    def close(self) -> None:
        """Nothing: the accelerator frees the engine."""


@torch.no_grad()
def gather_engine(optimizer: Any, *, parameters: Sequence[Tensor]) -> dict[int, dict[str, Any]]:
    """Each parameter's whole optimizer state, as AdamW alone would hold it, for the first process.

    All processes have to call it. `parameters` are the trained ones in the optimizer's order, from
    before it was divided.
    """
    linkage = importlib.import_module("deepspeed.utils")
    (step,) = {float(item["step"]) for item in optimizer.optimizer.state.values()}
    if not hasattr(parameters[0], "ds_id"):
        _link(optimizer)
    whole: dict[int, dict[str, Any]] = {}
    for place, item in enumerate(parameters):
        moments = {key: linkage.safe_get_full_optimizer_state(item, key).cpu() for key in MOMENTS}
        if process_index() == 0:
            whole[place] = {"step": torch.tensor(step), **moments}
    return whole


@torch.no_grad()
def spread_engine(
    optimizer: Any,
    state: Mapping[int, Mapping[str, Any]],
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


def _link(optimizer: Any) -> None:
    """Let stages 1 and 2 find every group's state; by themselves they look for the first one's."""
    optimizer._hp_optimizer_states_linked = False
    optimizer._lazy_init_hp_params_optimizer_state()
