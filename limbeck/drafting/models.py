"""The folder of a model that a recipe will name."""

import json
from pathlib import Path

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonObject
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


def read_model_config(folder: Path) -> JsonObject:
    """What a checkpoint's `config.json` says.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = folder / "config.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); copy the model whole") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return value
