"""What a GGUF bundle cannot hold, by the functions that refuse while it is written and before."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.contracts.errors import CheckpointError
from limbeck.models.gguf.types import WEIGHTS, find_multiple
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.runtimes.gguf.attention import find_factor, find_period, find_window
from limbeck.runtimes.gguf.families import FAMILIES, GgufFamily, Scale

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.runtimes.architecture import Architecture

BLOCKS = {name: find_multiple(name) for name in WEIGHTS}
"""Of which number the rows of a file of these weights have to be a multiple."""
CARRIED = {
    "float32": ("F32",),
    "int8": ("Q8_0",),
    "int4": ("Q4_0",),
    "ternary": ("TQ2_0", "TQ1_0"),
}
"""llama.cpp's types that hold each number format as it is, the usual one first."""


def check_format(
    number_format: QuantizedFormat | None, *, architecture: "Architecture", place: str | Path
) -> None:
    """Accept the format of a checkpoint's weights.

    Raises:
        CheckpointError: a GGUF file has none such, or its scales lie otherwise, or rows of some
            layers are no whole blocks of theirs.
    """
    if number_format is None:
        return
    for used in number_format.list_used():
        if used.kind not in CARRIED:
            raise CheckpointError(
                f"{place}: has layers of {used.kind}, which a GGUF file cannot hold as they are; "
                f"quantise these to one of {', '.join(sorted(CARRIED))}"
            )
        block = _block(used)
        if used.block != block:
            found = f"blocks of {used.block}" if used.block else "whole rows"
            raise CheckpointError(
                f"{place}: its integers share scales in {found}, those of {CARRIED[used.kind][0]} "
                f"in blocks of {block}; quantise with `block_size: {block}`"
            )
    for name, width in _list_layers(architecture, block=_block(number_format)):
        chosen = number_format.for_layer(name)
        if chosen is not number_format and width % _block(chosen):
            raise CheckpointError(
                f"{place}: rows of {name} are {width} long, and {chosen.kind} has blocks of "
                f"{_block(chosen)} in a GGUF file; leave that layer out of `layers`, or export for "
                "another runtime"
            )


def _block(number_format: QuantizedFormat) -> int:
    carried, *_ = CARRIED[number_format.kind]
    return BLOCKS[carried]


def _list_layers(architecture: "Architecture", *, block: int) -> Iterator[tuple[str, int]]:
    """Linear layers by name, with the lengths of their rows, the last block filled up."""
    heads = architecture.num_heads * architecture.head_dim
    mixture = architecture.mixture
    inner = architecture.intermediate_size if mixture is None else mixture.shared_width
    down = inner + -inner % block if mixture is None else inner
    feed = "mlp" if mixture is None else f"{mixture.names.block}.shared_expert"
    attention = {"q": 0, "k": 0, "v": 0, "qkv": 0, "o": heads}
    fed = {"gate": 0, "up": 0, "gate_up": 0, "down": down}
    for index in range(len(architecture.layers)):
        for place, parts in (("self_attn", attention), (feed, fed)):
            for part, width in parts.items():
                name = f"model.layers.{index}.{place}.{part}_proj"
                yield name, width or architecture.hidden_size


def check_tokenizer(tokenizer: "PreTrainedTokenizerBase", *, place: str | Path) -> None:
    """Accept a tokenizer that llama.cpp may have; whether it makes the same tokens, writing tells.

    Raises:
        CheckpointError: it is of another kind.
    """
    from limbeck.runtimes.gguf.vocabulary import describe_vocabulary  # noqa: PLC0415  (torch)

    num_rows = 1 + max(tokenizer.get_vocab().values())
    describe_vocabulary(tokenizer, num_rows=num_rows, end_ids=(), place=str(place))


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
    fault = (
        _find_attention_fault(architecture, family)
        or _find_position_fault(architecture, family)
        or _find_expert_fault(architecture, family)
        or _find_other_fault(architecture, family)
    )
    if fault:
        raise CheckpointError(f"{place}: {fault}; export for another runtime")
    kind = carried[0] if is_quantized and weights == "format" else weights
    block = BLOCKS.get(kind, 1)
    widths = {
        "hidden_size": architecture.hidden_size,
        "num_attention_heads x head_dim": architecture.num_heads * architecture.head_dim,
    }
    if architecture.mixture is not None:
        widths["the width of the shared expert"] = architecture.mixture.shared_width
        if not is_quantized:  # whose experts stay float32
            widths["the width of an expert"] = architecture.mixture.width
    for name, width in widths.items():
        if width % block:
            raise CheckpointError(
                f"{place}: {name} is {width}, and {kind} has blocks of {block}; choose a multiple, "
                "export the float checkpoint with `weights: F16`, or export for another runtime"
            )


def _find_attention_fault(architecture: "Architecture", family: GgufFamily) -> str:
    """What of a model's attention llama.cpp does not compute; '' for nothing."""
    name = architecture.model_type
    if find_window(architecture) is not None and not family.takes_windows:
        return f"has layers with a window, which llama.cpp does not compute for {name!r}"
    if family.takes_windows and find_period(architecture) is None:
        places = [n for n, layer in enumerate(architecture.layers) if layer.window is None]
        return (
            f"has layers without a window at {places[:8]}, and llama.cpp reads of a file only that "
            "each n-th layer has none"
        )
    heads, width = architecture.num_heads * architecture.head_dim, architecture.hidden_size
    if heads != width and not family.takes_wide_heads:
        return f"has heads of {heads} together and a width of {width}, llama.cpp equal ones"
    if architecture.num_key_value_heads != architecture.num_heads and not family.takes_shared_heads:
        return f"has fewer heads of keys than of queries, llama.cpp equally many for {name!r}"
    if "attention_scale" in family.optional:
        return ""
    scale = architecture.head_dim**-0.5
    if family.scaled_by_width == len(architecture.layers):
        scale = (architecture.hidden_size // architecture.num_heads) ** -0.5
    if not math.isclose(architecture.attention_scale, scale, rel_tol=1e-6):
        return (
            f"scales attention by {architecture.attention_scale:.6g}, llama.cpp by {scale:.6g} "
            f"for {name!r} with {len(architecture.layers)} layers"
        )
    return ""


def _find_position_fault(architecture: "Architecture", family: GgufFamily) -> str:
    """What of a model's rotary positions llama.cpp does not compute; '' for nothing."""
    name, width = architecture.model_type, architecture.head_dim
    step = family.step_without_positions
    for number, layer in enumerate(architecture.layers, start=1):
        if (layer.rotary is None) != bool(step and number % step == 0):
            found = "no positions" if layer.rotary is None else "positions"
            return (
                f"layer {number - 1} has {found}, which llama.cpp computes otherwise for {name!r}"
            )
    windowed = {layer.rotary for layer in architecture.layers if layer.window is not None}
    for place, rotary in enumerate(architecture.rotaries):
        if rotary.scale != 1:
            return (
                "scales its rotary positions in a way that is not written into GGUF files "
                "(supported: default, linear, llama3)"
            )
        turned = 2 * len(rotary.frequencies)
        if turned != width and not family.takes_partial_rotary:
            return f"rotates {turned} of {width} channels of a head, llama.cpp all for {name!r}"
        factor = find_factor(rotary)
        if factor is None and not family.takes_rotary_factors:
            return (
                "scales its rotary positions, which llama.cpp reads from a file of a Llama alone, "
                f"not of {name!r}"
            )
        if family.takes_windows and place in windowed and factor != 1:
            return "scales the rotary positions of layers with a window, which llama.cpp does not"
    return ""


def _find_expert_fault(architecture: "Architecture", family: GgufFamily) -> str:
    """What of a model's experts llama.cpp does not compute; '' for nothing."""
    mixture, name = architecture.mixture, architecture.model_type
    if mixture is None:
        return ""
    if len(mixture.layers) != len(architecture.layers):
        return f"has dense layers among the sparse ones, which llama.cpp does not read for {name!r}"
    if mixture.normalizes != (family.experts == "normalized"):
        found, known = ("a", "no") if mixture.normalizes else ("no", "a")
        return f"weighs experts with {found} norm, llama.cpp with {known} norm for {name!r}"
    if mixture.shared_width and not family.takes_shared_expert:
        return f"has a shared expert, which llama.cpp does not read for {name!r}"
    if mixture.scoring != "softmax" or mixture.num_groups != 1 or mixture.scale != 1:
        return f"routes by {mixture.scoring} in groups or with a scale, llama.cpp by softmax alone"
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
    if architecture.is_tied and not family.takes_tied_head:
        return f"has a head that is its embeddings, llama.cpp one of its own for {name!r}"
    scales: dict[Scale, tuple[float, float]] = {
        "attention_softcap": (architecture.attention_softcap, 0.0),
        "embedding_scale": (architecture.embedding_scale, _embedding_scale(architecture)),
        "logit_scale": (architecture.logit_scale, 1.0),
        "logit_softcap": (architecture.logit_softcap, 0.0),
        "residual_scale": (architecture.residual_scale, 1.0),
    }
    for field, (value, neutral) in scales.items():
        if value != neutral and field not in family.optional | family.required:
            return f"has {field} {value:.6g}, which llama.cpp does not compute for {name!r}"
        if value == neutral and field in family.required:
            return f"has no {field}, which llama.cpp always computes for {name!r}"
    return ""


def _embedding_scale(architecture: "Architecture") -> float:
    return architecture.hidden_size**0.5 if architecture.conventions.scales_embeddings else 1.0
