"""A model that a recipe will name: its folder, or a GGUF file that an entry unpacks."""

from dataclasses import dataclass, field
from pathlib import Path

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonObject
from limbeck.models.config_file import read_config
from limbeck.models.hub import fetch_checkpoint
from limbeck.models.weight_files import check_weight_files


@dataclass(frozen=True)
class NamedModel:
    """A model, and how a recipe calls it."""

    reference: str
    folder: Path
    """With its config and tokenizer."""
    entry: JsonObject = field(default_factory=dict)
    """Of the recipe, that makes it; empty where it is there already."""


def open_named_model(name: str, *, entry: str, scratch: Path) -> NamedModel:
    """A model by its folder, its name on the hub, or its GGUF file.

    Of a GGUF file, config and tokenizer are written to `scratch`, and `entry` is to make the rest.

    Raises:
        CheckpointError: there is none, or files are missing or cut short.
    """
    path = Path(name)
    if path.suffix != ".gguf":
        return NamedModel(name, open_model_folder(name))
    from limbeck.models.gguf.dequantize import (  # noqa: PLC0415  (an extra)
        describe_gguf,
        load_gguf_tokenizer,
    )
    from limbeck.models.gguf.header import read_header  # noqa: PLC0415  (an extra)

    header = read_header(path)
    describe_gguf(header).save_pretrained(scratch)
    load_gguf_tokenizer(header).save_pretrained(scratch)
    return NamedModel(entry, scratch, {"stage": "dequantize", "file": name})


def open_model_folder(name: str) -> Path:
    """A checkpoint's folder with all its weights; of a name on the hub, its download.

    Raises:
        CheckpointError: there is neither, or files are missing or cut short.
    """
    path = Path(name)
    if path.is_file():
        raise CheckpointError(f"{name}: is a file; name the folder that holds it, or a .gguf file")
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
