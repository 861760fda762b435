"""The folder of a model that a recipe will name."""

from pathlib import Path

from limbeck.contracts.errors import CheckpointError
from limbeck.models.hub import fetch_checkpoint


def open_model_folder(name: str) -> Path:
    """A checkpoint's folder; of a name on the hub, its download.

    Raises:
        CheckpointError: there is neither.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if name.count("/") != 1:
        raise CheckpointError(
            f"{name}: no such folder; name a checkpoint's folder, or ORGANISATION/NAME on the hub"
        )
    return fetch_checkpoint(name)
