"""Saving and restoring a run between two steps, so that it goes on bit for bit.

Left out: the finished checkpoint, which the stage writes.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from limbeck.contracts.errors import TrainingError

logger = logging.getLogger(__name__)
NAME = "training.pt"
StateDict = dict[str, Any]
"""What `state_dict` of a model, an optimizer or a `Stateful` returns."""


@dataclass(frozen=True)
class Saved:
    """A run between two steps."""

    step: int
    """The step to go on from; 0 for a fresh run."""
    history: list[dict[str, float]]
    parts: Mapping[str, StateDict]
    """States of model, objective, optimizer and whatever else takes part; empty for a fresh run."""


def save_state(folder: Path, *, saved: Saved) -> None:
    """Write everything a resumed run needs; a kill leaves the old file or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{NAME}.partial"
    torch.save({"step": saved.step, "history": saved.history, **saved.parts}, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(folder / NAME)


def read_state(folder: Path) -> Saved:
    """What the folder holds; a damaged file counts as none, with a warning."""
    path = folder / NAME
    if not path.is_file():
        return Saved(0, [], {})
    try:
        value = torch.load(path, weights_only=True, map_location="cpu")
        step, history = int(value.pop("step")), list(value.pop("history"))
    except Exception as error:  # torch.load raises whatever the damaged bytes lead it to
        logger.warning("%s: cannot be read (%s); training starts again from step 0", path, error)
        return Saved(0, [], {})
    logger.info("going on from step %d of %s", step, path)
    return Saved(step, history, value)


def restore(
    saved: Saved, *, folder: Path, loaders: Mapping[str, Callable[[StateDict], object]]
) -> None:
    """Give each part its state back; nothing for a fresh run.

    Raises:
        TrainingError: the state is another model's or another method's.
    """
    if not saved.parts:
        return
    try:
        for name, load in loaders.items():
            load(saved.parts[name])
    except (KeyError, ValueError, RuntimeError) as error:
        raise TrainingError(
            f"{folder / NAME}: the state of another model or method: {str(error)[:300]}; delete "
            "the file to train from step 0"
        ) from error
