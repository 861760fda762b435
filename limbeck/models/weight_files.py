"""Whether the weights beside a `config.json` are all there, from the files' heads alone.

Left out: whether they fit the config; loading them tells.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from limbeck.contracts.errors import CheckpointError

NAMES = ("model.safetensors", "pytorch_model.bin")
"""What transformers opens, the first that is there: the file, or the shards of its index."""
COPY_AGAIN = "copy the model's files again, whole"


def find_weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads a model's weights from; none where there are none.

    Other tools' copies beside them (`consolidated.safetensors`, `training_args.bin`) are not.

    Raises:
        CheckpointError: an index is damaged.
    """
    for name in NAMES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return [folder / name]
        if index.is_file():
            try:
                named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
                return sorted({folder / str(item) for item in named})
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise CheckpointError(
                    f"{index}: names no weights ({error}); {COPY_AGAIN}"
                ) from None
    return []


def count_weight_bytes(folder: Path) -> int:
    """Bytes of the files that transformers reads a model's weights from.

    Raises:
        CheckpointError: as `find_weight_files`.
    """
    return sum(path.stat().st_size for path in find_weight_files(folder) if path.is_file())


def check_weight_files(folder: Path) -> None:
    """Refuses a model's folder that has no weights, or not all of them.

    Raises:
        CheckpointError: a file is missing, or shorter than its head says.
    """
    files = find_weight_files(folder)
    if not files:
        packed = next(folder.glob("*.gguf"), None)
        advice = COPY_AGAIN if packed is None else f"an entry `dequantize` unpacks {packed.name}"
        raise CheckpointError(f"{folder}: has no weights ({' or '.join(NAMES)}); {advice}")
    if missing := [path.name for path in files if not os.path.lexists(path)]:
        raise CheckpointError(f"{folder}: lacks {', '.join(missing[:3])}; {COPY_AGAIN}")
    for path in files:
        if not os.access(path, os.R_OK):
            raise CheckpointError(
                f"{path}: may not be read: permission denied, or a link to nothing; ask its "
                "owner, or copy the model to where you may"
            )
        if path.suffix == ".safetensors":
            _check_head(path)


def find_tensor(files: Sequence[Path], name: str) -> Path | None:
    """The safetensors file that holds a tensor; None where none does.

    Raises:
        CheckpointError: a file is cut short or damaged.
    """
    for path in files:
        if path.suffix == ".safetensors":
            _check_head(path)
            with safe_open(path, framework="numpy") as file:
                if name in file.keys():  # noqa: SIM118  (no mapping)
                    return path
    return None


def _check_head(path: Path) -> None:
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: is cut short or damaged ({error}); {COPY_AGAIN}") from None
