"""Teachers: models that answer and never learn, in the type their weights are stored in.

A published mixture is often larger than one card. Where its weights do not fit, they are spread
over all cards, the machine's memory and its disk, and each layer computes where it lies or is
brought (accelerate's dispatch).
"""

import logging
import tempfile
import weakref
from pathlib import Path

import psutil
import torch
from torch import nn
from transformers import PreTrainedModel

from limbeck.models.checkpoints import load_model
from limbeck.models.weight_files import count_weight_bytes

logger = logging.getLogger(__name__)
LARGEST_SHARE = 0.8
"""Of the free memory: more weights than that leave too little for what is computed."""


def load_frozen(folder: Path) -> PreTrainedModel:
    """The model in a folder, in its stored type, spread over devices where one cannot hold it.

    Raises:
        CheckpointError: files are missing, damaged, or do not fit the config.
    """
    needed, free = count_weight_bytes(folder), free_bytes()
    if needed <= LARGEST_SHARE * free:
        return load_model(folder, dtype="auto").requires_grad_(False)
    logger.warning(
        "%s: %.1f GB of weights and %.1f GB of free memory on the device: the model is spread over "
        "what there is, which can be many times slower; TMPDIR holds what goes to the disk",
        folder,
        needed / 1e9,
        free / 1e9,
    )
    aside = tempfile.TemporaryDirectory(prefix="limbeck-offloaded-")
    model = load_model(
        folder, dtype="auto", device_map="auto", offload_folder=aside.name, max_memory=_most()
    )
    weakref.finalize(model, aside.cleanup)
    return model.requires_grad_(False)


def free_bytes() -> int:
    """Free memory of the device that training uses: a GPU's, or the machine's."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


def _most() -> dict[int | str, int]:
    """How much each device may hold, at most."""
    cards = {
        index: int(LARGEST_SHARE * torch.cuda.mem_get_info(index)[0])
        for index in range(torch.cuda.device_count())
    }
    own = psutil.virtual_memory().available if cards else free_bytes()
    return {**cards, "cpu": int(LARGEST_SHARE * own)}


def is_spread(model: nn.Module) -> bool:
    """Whether accelerate placed a model's layers, so that it cannot be moved as one."""
    return bool(getattr(model, "hf_device_map", None))


def move_unless_offloaded(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, unless it is spread over several."""
    if not any(is_spread(module) for module in (model, *model.children())):
        model.to(device)
