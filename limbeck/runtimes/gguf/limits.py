"""What a GGUF bundle cannot hold, by the functions that refuse while it is written and before."""

from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.contracts.errors import CheckpointError
from limbeck.quantization.formats.base import QuantizedFormat

if TYPE_CHECKING:
    from limbeck.runtimes.architecture import Architecture

BLOCK = 32
"""Numbers that share a scale in Q8_0, Q4_0 and Q4_1."""
BLOCK_WEIGHTS = ("Q8_0", "Q4_0", "Q4_1")
CARRIED = {"float32": "F32", "int8": "Q8_0", "int4": "Q4_0"}
"""llama.cpp's type of each number format."""
ROTARY_SCALED = ("llama", "mistral")
"""The families for which llama.cpp takes factors of rotary frequencies from a file."""


def check_format(number_format: QuantizedFormat | None, *, place: str | Path) -> None:
    """Accept the format of a checkpoint's weights.

    Raises:
        CheckpointError: its scales lie otherwise than those of a GGUF file.
    """
    if number_format is not None and number_format.block != BLOCK:
        found = f"blocks of {number_format.block}" if number_format.block else "whole rows"
        raise CheckpointError(
            f"{place}: its integers share scales in {found}, those of a GGUF file in blocks of "
            f"{BLOCK}; quantise with `block_size: {BLOCK}`"
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
    if is_quantized and weights not in ("format", carried):
        raise CheckpointError(
            f"{place}: its weights are integers, which {carried} holds as they are; {weights} "
            "would round them again. Leave `weights` out, or export the float checkpoint"
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
    if not (is_quantized or weights in BLOCK_WEIGHTS):
        return
    widths = {
        "hidden_size": architecture.hidden_size,
        "num_attention_heads x head_dim": architecture.num_heads * architecture.head_dim,
    }
    for name, width in widths.items():
        if width % BLOCK:
            raise CheckpointError(
                f"{place}: {name} is {width}, and {carried if is_quantized else weights} has "
                f"blocks of {BLOCK}; choose a multiple, or export the float checkpoint with "
                "`weights: F16`"
            )
