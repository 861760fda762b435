"""Saving and restoring a run between two steps, so that it goes on bit for bit.

Left out: the finished checkpoint, which the stage writes.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)
NAME = "training.pt"


def save_state(
    folder: Path, *, step: int, parts: Mapping[str, Any], history: list[dict[str, float]]
) -> None:
    """Write everything a resumed run needs; a kill leaves the old file or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{NAME}.partial"
    value = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"step": step, "history": history, **value}, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(folder / NAME)


def load_state(folder: Path, *, parts: Mapping[str, Any], history: list[dict[str, float]]) -> int:
    """The step to go on from, 0 for a fresh run; parts and history are restored in place."""
    path = folder / NAME
    if not path.is_file():
        return 0
    try:
        value = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises whatever the damaged bytes lead it to
        logger.warning("%s: cannot be read (%s); training starts again from step 0", path, error)
        return 0
    for name, part in parts.items():
        part.load_state_dict(value[name])
    history.extend(value["history"])
    logger.info("going on from step %d of %s", value["step"], path)
    return int(value["step"])
