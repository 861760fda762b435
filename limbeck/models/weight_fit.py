"""Whether the weights of a checkpoint are those that its config describes, no more and no less.

Transformers leaves out what a config does not describe, so a model of biases, norms or layers that
are not stated would answer otherwise without a word. Left out: whether the files are whole
(`weight_files.py`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonMapping
from limbeck.models.weight_files import find_tensor, find_weight_files
from limbeck.quantization.formats.base import find_quantized

UNPACKED = ("mxfp4",)
"""Codes of other tools that transformers turns into floats, and saves as floats."""
NUM_ROWS = 64
"""Of two tables that may be the same one; unequal ones differ everywhere."""


def check_fit(model: PreTrainedModel, *, info: Mapping[str, Any], folder: Path) -> None:
    """Accept a loaded model; `info` is transformers' account of what found its place.

    Raises:
        CheckpointError: parts of the model have no weights, or weights of its parts were left out.
    """
    missing = sorted(info["missing_keys"])
    wrong = sorted(str(item) for item in info["mismatched_keys"])
    if missing or wrong:
        raise CheckpointError(
            f"{folder}: weights do not fit config.json: missing {missing[:5]}, of another shape "
            f"{wrong[:5]}; the config belongs to another model"
        )
    if left := [name for name in sorted(info["unexpected_keys"]) if _is_part(model, name)]:
        raise CheckpointError(
            f"{folder}: config.json describes a model without {left[:5]}, which the weights hold; "
            "they would be left out, so the config belongs to another model"
        )
    for head, table in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        if _differ(folder, head, table):
            raise CheckpointError(
                f"{folder}: config.json says that {head} is {table}, and the weights hold another "
                "one; set tie_word_embeddings to false in config.json"
            )


def check_codes(config: JsonMapping, *, place: Path) -> None:
    """Accept floats, our own codes, and those that transformers unpacks.

    Raises:
        CheckpointError: another tool's codes.
    """
    stated = config.get("quantization_config")
    if not isinstance(stated, Mapping) or find_quantized(config) is not None:
        return
    method = stated.get("quant_method")
    if method not in UNPACKED:
        raise CheckpointError(
            f"{place}: its weights are codes of {method!r}, which are neither trained nor exported "
            f"here (read are floats, {', '.join(UNPACKED)} and GGUF files); name the "
            "floating-point checkpoint that they were made from"
        )


def _is_part(model: PreTrainedModel, name: str) -> bool:
    """Whether a tensor belongs inside a block that the model has, or to a further one.

    Heads of other tasks and whole further networks, beside the decoder's parts, are no parts of it.
    """
    owner = name.rpartition(".")[0]
    while owner:
        try:
            found = model.get_submodule(owner)
        except AttributeError:
            owner = owner.rpartition(".")[0]
            continue
        return found is not model.base_model
    return False


def _differ(folder: Path, *names: str) -> bool:
    """Whether files hold both tables, with other numbers."""
    files = find_weight_files(folder)
    rows = []
    for name in names:
        path = find_tensor(files, name)
        if path is None:
            return False
        with safe_open(path, framework="pt") as file:
            rows.append(file.get_slice(name)[:NUM_ROWS].float())
    return not torch.equal(*rows)
