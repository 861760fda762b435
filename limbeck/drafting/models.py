"""The folder of a model that a recipe will name."""

from pathlib import Path

from limbeck.contracts.errors import CheckpointError
from limbeck.models.checkpoints import read_config
from limbeck.models.hub import fetch_checkpoint
from limbeck.models.weight_files import check_weight_files


def open_model_folder(name: str) -> Path:
    """A checkpoint's folder with all its weights; of a name on the hub, its download.

    Raises:
        CheckpointError: there is neither, or files are missing or cut short.
    """
    path = Path(name)
    if path.is_file():
        raise CheckpointError(f"{name}: is a file; name the folder that holds it")
    if not path.is_dir():
        if name.count("/") != 1:
            raise CheckpointError(
                f"{name}: no such folder; name a checkpoint's folder, or ORGANISATION/NAME on the "
                "hub"
            )
        path = fetch_checkpoint(name)
    read_config(path)
    check_weight_files(path)
    return path
