"""The processes that train together: their accelerator, and which micro-batches each computes.

A launcher (`accelerate launch`) starts them and sets how they share the work: each with a whole
model (DDP), or each with a part of it (DeepSpeed ZeRO, FSDP2).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    KwargsHandler,
    broadcast_object_list,
    gather_object,
)
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from limbeck.contracts.errors import LaunchError
from limbeck.env.ranks import num_processes
from limbeck.models.batch import Batch

Value = TypeVar("Value")
Sharding = Literal["none", "zero", "fsdp2"]
"""Whether every process holds the whole model, and if not, who divides it."""
PROCESS_GROUP_TIMEOUT = timedelta(days=7)
"""How long a process waits for the first one, which prepares data and reports alone. If a process
dies, the launcher ends the others at once."""


def open_accelerator() -> Accelerator:
    """The accelerator of this process; under a launcher, all processes have to call it.

    Weights stay float32 whatever the launcher's file sets: `training.precision` decides.

    Raises:
        LaunchError: the processes cannot work together as they were launched.
    """
    handlers: list[KwargsHandler] = [
        # A batch may leave parameters unused, such as those of the image encoder.
        DistributedDataParallelKwargs(find_unused_parameters=True)
    ]
    if "LOCAL_RANK" in os.environ:
        backend = None if torch.accelerator.is_available() else "gloo"
        handlers.append(InitProcessGroupKwargs(backend=backend, timeout=PROCESS_GROUP_TIMEOUT))
    try:
        accelerator = Accelerator(mixed_precision="no", kwargs_handlers=handlers)
    except ImportError as error:
        raise LaunchError(f"{error}; or choose recipes/accelerate/fsdp2.yaml") from None
    # Models are built and read whole, then divided; transformers would build them in parts.
    unset_hf_deepspeed_config()
    launched, found = num_processes(), accelerator.num_processes
    alone = accelerator.distributed_type == DistributedType.NO
    if launched != found or (launched > 1 and alone):
        raise LaunchError(
            f"{launched} processes were launched, and {1 if alone else found} can work together: "
            "the launcher's file is for GPUs, and there is none; use recipes/accelerate/cpu.yaml"
        )
    return accelerator


def place(model: PreTrainedModel) -> PreTrainedModel:
    """The model, where its process trains; one that processes divide among them stays where it is.

    Raises:
        LaunchError: the processes cannot work together as they were launched.
    """
    accelerator = open_accelerator()
    if find_sharding(accelerator) == "none":
        nn.Module.to(model, accelerator.device)
    return model


def find_sharding(accelerator: Accelerator) -> Sharding:
    """How the processes divide a model.

    Raises:
        LaunchError: in a way that training does not support.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return "zero"
    if accelerator.distributed_type == DistributedType.FSDP:
        if not accelerator.is_fsdp2:
            raise LaunchError("the launcher's file sets FSDP1; set fsdp_version: 2 in it")
        return "fsdp2"
    if accelerator.distributed_type == DistributedType.MEGATRON_LM:
        raise LaunchError("Megatron-LM is not supported; use a file of recipes/accelerate")
    return "none"


@dataclass(frozen=True)
class RankMicrobatch:
    """One micro-batch for one process."""

    place: int
    """Of the micro-batch in its step."""
    batch: Batch
    is_padding: bool
    """True for a repeated micro-batch whose loss is discarded, so that all ranks run the same
    number of passes."""


def assign_microbatches_to_rank(
    batches: Sequence[Batch], *, index: int, num_processes: int
) -> list[RankMicrobatch]:
    """A process's micro-batches, as many as every other's: collectives inside a pass need that.

    Where they do not divide evenly, the last ranks compute the smallest once more as padding.
    """
    if not batches:
        return []
    smallest = min(range(len(batches)), key=lambda place: batches[place].input_ids.numel())
    places = range(index, -(-len(batches) // num_processes) * num_processes, num_processes)
    return [
        RankMicrobatch(place, batches[place], False)
        if place < len(batches)
        else RankMicrobatch(smallest, batches[smallest], True)
        for place in places
    ]


def gather(accelerator: Accelerator, value: Value) -> list[Value]:
    """The value of every process, in their order, on each of them."""
    return gather_object([value]) if accelerator.num_processes > 1 else [value]


def broadcast_from_rank0(accelerator: Accelerator, value: Value) -> Value:
    """The first process's value, on each of them."""
    if accelerator.num_processes == 1:
        return value
    return broadcast_object_list([value], from_process=0)[0]
