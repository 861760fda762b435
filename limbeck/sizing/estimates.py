"""What a dense decoder in a file format takes on a device: bytes, memory, time.

Bytes follow the writers' rules. Time is that of reading memory, or of arithmetic where the device's
is stated; the shares of either that are reached are assumed (`hardware`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from limbeck.models.decoder_sizes import SizedConfig
from limbeck.sizing.attention import attention_flops, count_cached
from limbeck.sizing.file_formats import (
    FLOAT_BYTES,
    FileFormat,
    VocabularyBytes,
    WeightBytes,
)
from limbeck.sizing.hardware import BANDWIDTH_UTILISATION, GPU_UTILISATION
from limbeck.sizing.shape_counts import ShapeCounts, count_parameters, count_products

CACHE_BYTES: Mapping[str, int] = {"transformers": 4, "onnx": 4, "gguf": 2}
"""Of one cached number: float32 in our ONNX graphs and in PyTorch, float16 in llama.cpp."""
CACHE_COPIES: Mapping[str, int] = {"transformers": 2, "onnx": 2, "gguf": 1}
"""A step of ours makes the cache anew beside the one that it reads; llama.cpp writes into it."""
PROCESS_BYTES: Mapping[str, int] = {
    "transformers": 400_000_000,
    "onnx": 80_000_000,
    "gguf": 20_000_000,
}
"""Of a process with the runtime and no model. Fitted, as what follows, to peaks on Linux and x86-64
(benchmarks/bundle_budgets.py and full_size.py)."""
WIDTHS: Mapping[str, tuple[int, int]] = {
    "transformers": (8, 8),
    "onnx": (8, 8),
    "gguf": (8, 6),
}
"""Numbers that a prompt's token holds, over the width of the model and of its feed-forward."""
CORE_BYTES_PER_SECOND: Mapping[str, float] = {
    "onnx float32": 15.6e9,
    "onnx int8": 8.8e9,
    "onnx int4": 5.9e9,
    "onnx int2": 4.0e9,
    "onnx ternary": 4.3e9,
    "gguf F32": 17.7e9,
    "gguf F16": 19.7e9,
    "gguf BF16": 15.9e9,
    "gguf Q8_0": 14.1e9,
    "gguf Q6_K": 15.6e9,
    "gguf Q4_1": 9.0e9,
    "gguf Q4_K_M": 14.6e9,
    "gguf Q4_0": 11.8e9,
    "gguf TQ2_0": 10.4e9,
    "gguf TQ1_0": 4.9e9,
}
"""Weights that one core multiplies by, unpacking them: bytes a second of processor time, measured
on a Zen 4 core with AVX-512 by the same benchmarks, TQ1_0 and TQ2_0 on 2.2 B and 6.2 B parameters,
two bits in ONNX by their ratio to INT4 in one run (0.68 and 0.72). F32 and BF16 by their ratio to
F16 on a Xeon, Q6_K and Q4_K_M by theirs to Q8_0, Q4_1 and Q4_0 there (medians of three runs).
Another core may be two to four times slower."""
PROMPT_TOKENS = 512
"""That llama.cpp computes at a time, and has memory for."""
BIT_COUNT = 8


@dataclass(frozen=True)
class Device:
    """What is known of the device; 0 for what is not stated."""

    bytes_per_second: float
    """Bandwidth of its memory."""
    flops_per_second: float
    """Peak of the products of its number format."""
    threads: int = 0
    """That answer."""


@dataclass(frozen=True)
class TextLengths:
    """How long the texts are."""

    context_tokens: int
    """Question and answer, all kept in the cache."""
    prompt_tokens: int
    """Of the question, read before the first token of an answer."""


@dataclass(frozen=True)
class DesignEstimate:
    """What one design takes in one file format."""

    file_format: str
    parameters: int
    bits_per_weight: float
    """Over all parameters, scales and tables counted."""
    weight_bytes: int
    table_bytes: int
    """Of those, embeddings and head."""
    disk_bytes: int
    """Of the bundle; of a GGUF bundle the one file, which has its vocabulary inside."""
    cache_bytes: int
    """Keys and values of the whole context."""
    memory_bytes: int
    """At the peak: what is loaded, cache, the numbers of a prompt, the runtime itself."""
    read_bytes: int
    """Of memory, for one token at the end of the context."""
    tokens_per_second: float
    """At the end of the context; 0 where no bandwidth is stated."""
    first_token_seconds: float
    """0 where no arithmetic is stated."""


def estimate(
    config: SizedConfig,
    file_format: FileFormat,
    *,
    shapes: ShapeCounts,
    vocabulary: VocabularyBytes,
    device: Device,
    use: TextLengths,
) -> DesignEstimate:
    """What a design takes, whose parameters have these shapes."""
    weights = file_format.measure(shapes)
    text = config.get_text_config()
    rest = file_format.measure_rest(shapes, num_layers=text.num_hidden_layers, vocab=vocabulary)
    cache = use.context_tokens * count_cached(config) * CACHE_BYTES[file_format.runtime]
    read = weights.total - weights.lookup + cache
    parameters = count_parameters(shapes)
    return DesignEstimate(
        file_format=file_format.name,
        parameters=parameters,
        bits_per_weight=BIT_COUNT * weights.total / parameters,
        weight_bytes=weights.total,
        table_bytes=weights.tables,
        disk_bytes=weights.total + rest,
        cache_bytes=cache,
        memory_bytes=_memory(config, file_format, parameters, weights=weights, use=use)
        + CACHE_COPIES[file_format.runtime] * cache,
        read_bytes=read,
        tokens_per_second=_tokens_per_second(
            config, shapes, file_format.name, read=read, cache=cache, device=device, use=use
        ),
        first_token_seconds=_first_token(config, shapes, read=read, device=device, use=use),
    )


def _memory(
    config: SizedConfig,
    file_format: FileFormat,
    parameters: int,
    *,
    weights: WeightBytes,
    use: TextLengths,
) -> int:
    """At the peak, without the cache."""
    runtime, loaded = file_format.runtime, weights.total
    if runtime == "onnx":  # which lays matrices out anew, beside what it has read
        loaded += weights.body if file_format.weights == "float32" else weights.total
    elif runtime == "transformers":  # where a model is built of floats, whatever is put into it
        loaded += FLOAT_BYTES * parameters
    else:
        loaded += weights.repacked
    tokens = min(use.context_tokens, PROMPT_TOKENS) if runtime == "gguf" else use.prompt_tokens
    text = config.get_text_config()
    hidden, channels = WIDTHS[runtime]
    width = hidden * text.hidden_size + channels * text.intermediate_size
    return loaded + FLOAT_BYTES * (tokens * width + text.vocab_size) + PROCESS_BYTES[runtime]


def _tokens_per_second(
    config: SizedConfig,
    shapes: ShapeCounts,
    name: str,
    *,
    read: int,
    cache: int,
    device: Device,
    use: TextLengths,
) -> float:
    """What binds most: the memory, the cores, or the arithmetic, of those that are stated."""
    if not device.bytes_per_second:
        return 0.0
    seconds = read / (device.bytes_per_second * BANDWIDTH_UTILISATION)
    rate = CORE_BYTES_PER_SECOND.get(name)
    if device.threads and rate:
        seconds = max(seconds, (read - cache) / (device.threads * rate))
    if device.flops_per_second:
        attention = attention_flops(config, attended=float(use.context_tokens))
        flops = 2 * count_products(shapes) + attention
        seconds = max(seconds, flops / (device.flops_per_second * GPU_UTILISATION["dense"]))
    return 1 / seconds


def _first_token(
    config: SizedConfig, shapes: ShapeCounts, *, read: int, device: Device, use: TextLengths
) -> float:
    if not device.flops_per_second:
        return 0.0
    attention = attention_flops(config, attended=(use.prompt_tokens + 1) / 2)
    flops = use.prompt_tokens * (2 * count_products(shapes) + attention)
    seconds = flops / (device.flops_per_second * GPU_UTILISATION["dense"])
    if device.bytes_per_second:
        seconds = max(seconds, read / (device.bytes_per_second * BANDWIDTH_UTILISATION))
    return seconds
