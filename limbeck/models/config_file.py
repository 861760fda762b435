"""What a model's folder says of itself in `config.json`, as it stands there."""

import json
from collections.abc import Mapping
from pathlib import Path

from limbeck.contracts.errors import CheckpointError

LOCAL: Mapping[str, bool] = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is fetched, and no code that lies beside a model is run, or asked about."""


def read_config(folder: Path) -> dict:
    """The content of a checkpoint's `config.json`.

    Raises:
        CheckpointError: the folder or the file is missing or damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: no config.json, so it is not a model folder; name a folder that "
            "transformers' save_pretrained wrote"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); make the checkpoint again") from None
    if not isinstance(value, dict) or "model_type" not in value:
        raise CheckpointError(f"{path}: has no 'model_type'; expected a transformers config")
    return value
