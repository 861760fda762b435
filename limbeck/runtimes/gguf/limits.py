"""What a GGUF bundle cannot hold, by the functions that refuse while it is written and before."""

from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.contracts.errors import CheckpointError
from limbeck.quantization.formats.base import QuantizedFormat

if TYPE_CHECKING:
    from limbeck.runtimes.architecture import Architecture

BLOCKS = {"Q8_0": 32, "Q4_0": 32, "Q4_1": 32, "TQ2_0": 256, "TQ1_0": 256}
"""Numbers that share a scale in llama.cpp's types of integers."""
CARRIED = {
    "float32": ("F32",),
    "int8": ("Q8_0",),
    "int4": ("Q4_0",),
    "ternary": ("TQ2_0", "TQ1_0"),
}
"""llama.cpp's types that hold each number format as it is, the usual one first."""
ROTARY_SCALED = ("llama", "mistral")
"""The families for which llama.cpp takes factors of rotary frequencies from a file."""


def check_format(number_format: QuantizedFormat | None, *, place: str | Path) -> None:
    """Accept the format of a checkpoint's weights.

    Raises:
        CheckpointError: its scales lie otherwise than those of a GGUF file.
    """
    if number_format is None:
        return
    carried, *_ = CARRIED[number_format.kind]
    if number_format.block != BLOCKS[carried]:
        found = f"blocks of {number_format.block}" if number_format.block else "whole rows"
        raise CheckpointError(
            f"{place}: its integers share scales in {found}, those of {carried} in blocks of "
            f"{BLOCKS[carried]}; quantise with `block_size: {BLOCKS[carried]}`"
        )


def check_model(
    architecture: "Architecture", *, number_format: str, weights: str, place: str | Path
) -> None:
    """Accept a model.

    Raises:
        CheckpointError: llama.cpp computes no such model, or its blocks do not fit.
    """
    is_quantized = number_format != "float32"
    carried = CARRIED[number_format]
    if is_quantized and weights not in ("format", *carried):
        raise CheckpointError(
            f"{place}: its weights are integers, which {' or '.join(carried)} holds as they are; "
            f"{weights} would round them again. Leave `weights` out, or export the float checkpoint"
        )
    if not is_quantized and weights in CARRIED["ternary"]:
        raise CheckpointError(
            f"{place}: its weights are floats, and {weights} holds -1, 0 and 1 times a scale, to "
            "which a model has to be trained; name a checkpoint of `scheme: {kind: ternary}`"
        )
    if any(item.window is not None for item in architecture.layers):
        raise CheckpointError(
            f"{place}: has layers with a window, which llama.cpp does not compute for "
            f"{architecture.model_type!r}; export for another runtime"
        )
    if len(architecture.rotaries) != 1 or any(item.scale != 1 for item in architecture.rotaries):
        raise CheckpointError(
            f"{place}: scales its rotary positions in a way that is not written into GGUF files; "
            "supported: default, linear, llama3"
        )
    kind = carried[0] if is_quantized and weights == "format" else weights
    block = BLOCKS.get(kind, 1)
    widths = {
        "hidden_size": architecture.hidden_size,
        "num_attention_heads x head_dim": architecture.num_heads * architecture.head_dim,
    }
    for name, width in widths.items():
        if width % block:
            raise CheckpointError(
                f"{place}: {name} is {width}, and {kind} has blocks of {block}; choose a multiple, "
                "export the float checkpoint with `weights: F16`, or export for another runtime"
            )
