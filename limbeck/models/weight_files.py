"""Whether the weights beside a `config.json` are all there, from the files' heads alone.

Left out: whether they fit the config; loading them tells.
"""

import json
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from limbeck.contracts.errors import CheckpointError

OTHER_WEIGHTS = ("*.bin", "*.gguf")
"""Files of other tools, whose heads say nothing of their length."""
COPY_AGAIN = "copy the model's files again, whole"


def check_weight_files(folder: Path) -> None:
    """Refuses a model's folder that has no weights, or not all of them.

    Raises:
        CheckpointError: a file is missing, or shorter than its head says.
    """
    shards = {path.name for path in folder.glob("*.safetensors")}
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{index}: names no weights ({error}); {COPY_AGAIN}") from None
        if missing := sorted(named - shards):
            raise CheckpointError(f"{folder}: lacks {', '.join(missing[:3])}; {COPY_AGAIN}")
    if not shards and not any(any(folder.glob(pattern)) for pattern in OTHER_WEIGHTS):
        raise CheckpointError(f"{folder}: has no weights (*.safetensors); {COPY_AGAIN}")
    for name in sorted(shards):
        if not os.access(folder / name, os.R_OK):
            raise CheckpointError(
                f"{folder / name}: may not be read: permission denied, or a link to nothing; ask "
                "its owner, or copy the model to where you may"
            )
        try:
            with safe_open(folder / name, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{folder / name}: is cut short or damaged ({error}); {COPY_AGAIN}"
            ) from None
