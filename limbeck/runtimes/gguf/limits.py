"""What a GGUF bundle cannot hold, by the functions that refuse while it is written and before."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.contracts.errors import CheckpointError
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.runtimes.gguf.attention import find_factor, find_period, find_window
from limbeck.runtimes.gguf.families import FAMILIES, GgufFamily

if TYPE_CHECKING:
    from limbeck.runtimes.architecture import Architecture

BLOCKS = {"Q8_0": 32, "Q4_0": 32, "Q4_1": 32, "TQ2_0": 256, "TQ1_0": 256}
"""Numbers that share a scale in llama.cpp's types of integers."""
BLOCKS |= {"Q4_K_M": 32, "Q6_K": 32}  # rows that are no whole blocks of 256 get other types
CARRIED = {
    "float32": ("F32",),
    "int8": ("Q8_0",),
    "int4": ("Q4_0",),
    "ternary": ("TQ2_0", "TQ1_0"),
}
"""llama.cpp's types that hold each number format as it is, the usual one first."""


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
    family = FAMILIES[architecture.model_type]
    fault = _find_attention_fault(architecture, family) or _find_other_fault(architecture, family)
    if fault:
        raise CheckpointError(f"{place}: {fault}; export for another runtime")
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


def _find_attention_fault(architecture: "Architecture", family: GgufFamily) -> str:
    """What of a model's attention llama.cpp does not compute; '' for nothing."""
    name, width = architecture.model_type, architecture.head_dim
    if find_window(architecture) is not None and not family.takes_windows:
        return f"has layers with a window, which llama.cpp does not compute for {name!r}"
    if family.takes_windows and find_period(architecture) is None:
        places = [n for n, layer in enumerate(architecture.layers) if layer.window is None]
        return (
            f"has layers without a window at {places[:8]}, and llama.cpp reads of a file only that "
            "each n-th layer has none"
        )
    if any(layer.rotary is None for layer in architecture.layers):
        return f"has layers without positions, which llama.cpp does not compute for {name!r}"
    windowed = {layer.rotary for layer in architecture.layers if layer.window is not None}
    for place, rotary in enumerate(architecture.rotaries):
        if rotary.scale != 1:
            return (
                "scales its rotary positions in a way that is not written into GGUF files "
                "(supported: default, linear, llama3)"
            )
        if (turned := 2 * len(rotary.frequencies)) != width:
            return f"rotates {turned} of {width} channels of a head, llama.cpp all for {name!r}"
        factor = find_factor(rotary)
        if factor is None and not family.takes_rotary_factors:
            return (
                "scales its rotary positions, which llama.cpp reads from a file of a Llama alone, "
                f"not of {name!r}"
            )
        if family.takes_windows and place in windowed and factor != 1:
            return "scales the rotary positions of layers with a window, which llama.cpp does not"
    scale = width**-0.5
    if family.scaled_by_width == len(architecture.layers):
        scale = (architecture.hidden_size // architecture.num_heads) ** -0.5
    if not math.isclose(architecture.attention_scale, scale, rel_tol=1e-6):
        return (
            f"scales attention by {architecture.attention_scale:.6g}, llama.cpp by {scale:.6g} "
            f"for {name!r} with {len(architecture.layers)} layers"
        )
    return ""


def _find_other_fault(architecture: "Architecture", family: GgufFamily) -> str:
    """What of the rest of a model llama.cpp does not compute; '' for nothing."""
    name = architecture.model_type
    if architecture.activation != family.activation:
        return f"has activation {architecture.activation!r}, llama.cpp {family.activation!r}"
    if architecture.has_output_bias and not family.takes_output_bias:
        return (
            "has biases in attention's last projection or in the feed-forward, which llama.cpp "
            f"does not read for {name!r}"
        )
    for field, value in (
        ("attention_softcap", architecture.attention_softcap),
        ("logit_softcap", architecture.logit_softcap),
    ):
        if value and field not in family.optional | family.required:
            return f"has {field} {value}, which llama.cpp does not compute for {name!r}"
        if not value and field in family.required:
            return f"has no {field}, which llama.cpp always computes for {name!r}"
    return ""
