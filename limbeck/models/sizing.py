"""What a model costs, before any of its weights exist: parameters, bytes, arithmetic, time.

A model is built on the meta device, which allocates nothing, so sizes are those of the real
module tree. Left out: memory of activations and of the optimizer, and what a runtime adds.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.initialization import no_init_weights

import limbeck.models.moe
import limbeck.models.vision  # noqa: F401  (both register architectures with the Auto classes)
from limbeck.contracts.errors import CheckpointError

Role = Literal["embedding", "expert", "gate", "matrix", "vector", "vision"]
KV_BYTES = 2
"""Of one cached number, bfloat16."""
TRAINING_RATIO = 3
"""Arithmetic of forward and backward over that of forward: a product has two gradients."""
DENSE_EFFICIENCY = 0.45
SPARSE_EFFICIENCY = 0.2
"""Arithmetic of training over that of large matrix products on the same machine.

Measured on one CPU core, whole optimizer steps in float32, batches of 32 x 40 tokens: dense 0.27 at
0.6 M parameters, 0.48 at 4 M, 0.62 at 21 M; 128 experts of width 48 0.16, with 128 x 40 tokens
0.22. Small products wait for memory and for the layers between them."""


@dataclass(frozen=True)
class NumberFormat:
    """How matrices are stored; norms, biases and gates stay float32 in formats below 16 bits."""

    name: str
    bits: float
    block: int = 0
    """Weights of a row that share a scale; 0 is the whole row."""
    scale_bits: int = 0
    """0 where nothing is scaled."""
    embeddings: str = ""
    """Format of embeddings and language head, where another one is usual."""

    def num_bits(self, *, rows: int, columns: int) -> float:
        """Bits of a matrix with its scales."""
        blocks = math.ceil(columns / self.block) if self.block else 1
        return rows * (columns * self.bits + blocks * self.scale_bits)

    @property
    def bits_per_weight(self) -> float:
        """Bits of one weight in long rows, with its share of the block's scale."""
        return self.bits + (self.scale_bits / self.block if self.block else 0.0)


FORMATS = (
    NumberFormat("float32", 32.0),
    NumberFormat("bfloat16", 16.0),
    NumberFormat("int8", 8.0, scale_bits=32),
    NumberFormat("int4", 4.0, block=128, scale_bits=16),
    NumberFormat("int2", 2.0, block=128, scale_bits=16, embeddings="int4"),
    NumberFormat("ternary", 1.6, block=256, scale_bits=16, embeddings="int4"),
)
"""Most precise first. Ternary packs five digits of base 3 into eight bits."""


@dataclass(frozen=True)
class FormatSize:
    """Bytes of a whole model in one format."""

    name: str
    total_bytes: int
    embedding_bytes: int
    """Of embeddings and language head, stated apart because they are easily forgotten."""
    embedding_format: str


@dataclass(frozen=True)
class ModelSize:
    """What a model of a given config costs."""

    parameters: int
    active_parameters: int
    """That one token of text uses: of the experts only the picked ones, embeddings in full, and
    nothing of an image encoder."""
    embedding_parameters: int
    """Embeddings and language head; tied ones count once."""
    expert_parameters: int
    gate_parameters: int
    context_tokens: int
    forward_flops: float
    """Per token that attends to `context_tokens`: 2 per active matrix weight, and attention."""
    training_flops: float
    """Per token, forward and backward, of sequences of `context_tokens`: on average half of them
    are attended to."""
    kv_cache_bytes: int
    """Per token kept in the cache, all layers, bfloat16."""
    skipped_ratio: float
    """Share of the expert arithmetic that routing saves, the gate's own counted; 0 if dense."""
    formats: tuple[FormatSize, ...]


@dataclass(frozen=True)
class _Tensor:
    role: Role
    numel: int
    rows: int
    columns: int
    products: float
    """How often one token multiplies by every weight."""


def size_model(config: PreTrainedConfig, *, context_tokens: int) -> ModelSize:
    """What a causal language model costs, sparse or dense.

    Raises:
        CheckpointError: transformers cannot build the config as a causal language model.
    """
    assert context_tokens > 0
    tensors = list(_list_tensors(config))
    totals = dict.fromkeys(("embedding", "expert", "gate", "matrix", "vector", "vision"), 0)
    for tensor in tensors:
        totals[tensor.role] += tensor.numel
    parameters = sum(totals.values())
    share = _picked_experts(config) / _num_experts(config) if totals["expert"] else 1.0
    active = parameters - totals["vision"] - totals["expert"] + round(totals["expert"] * share)
    multiplied = sum(
        tensor.numel * tensor.products * (share if tensor.role == "expert" else 1.0)
        for tensor in tensors
    )
    sparse = totals["expert"] + totals["gate"]
    used = totals["expert"] * share + totals["gate"]
    at_end, halfway = (
        2 * multiplied + _attention_flops(config, attended=attended)
        for attended in (float(context_tokens), (context_tokens + 1) / 2)
    )
    return ModelSize(
        parameters=parameters,
        active_parameters=active,
        embedding_parameters=totals["embedding"],
        expert_parameters=totals["expert"],
        gate_parameters=totals["gate"],
        context_tokens=context_tokens,
        forward_flops=at_end,
        training_flops=TRAINING_RATIO * halfway,
        kv_cache_bytes=_cached_numbers(config) * KV_BYTES,
        skipped_ratio=1 - used / sparse if totals["expert"] else 0.0,
        formats=tuple(_size_format(item, tensors) for item in FORMATS),
    )


def _list_tensors(config: PreTrainedConfig) -> Iterator[_Tensor]:
    """Every parameter once, with what it is for."""
    try:
        with torch.device("meta"), no_init_weights():
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            model.tie_weights()
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise CheckpointError(
            f"a config of type {config.model_type!r} does not describe a causal language model: "
            f"{str(error)[:400]}"
        ) from None
    head = model.get_output_embeddings()
    tables = {
        id(module.weight): False for module in model.modules() if isinstance(module, nn.Embedding)
    }
    if isinstance(head, nn.Module):
        tables[id(head.weight)] = True
    for name, parameter in model.named_parameters():
        *shape, columns = parameter.shape or (1,)
        rows = math.prod(shape)
        is_table = id(parameter) in tables and "position_embedding" not in name
        role = "embedding" if is_table else _find_role(name, parameter, config=config)
        yield _Tensor(
            role, parameter.numel(), rows, columns,
            float(tables[id(parameter)]) if is_table else _count_products(name, role, config),
        )  # fmt: skip


def _count_products(name: str, role: Role, config: PreTrainedConfig) -> float:
    if role in ("vector", "vision") or (role == "expert" and name.endswith("bias")):
        return 0.0
    # A fusion looks at the outputs of every picked expert.
    if ".fusion.key" in name or ".fusion.value" in name:
        return float(_picked_experts(config))
    return 1.0


def _find_role(name: str, parameter: nn.Parameter, *, config: PreTrainedConfig) -> Role:
    segments = name.split(".")
    if config.model_type == "limbeck_vision" and segments[0] != "language_model":
        return "vision"
    if "experts" in segments:
        return "expert"
    if parameter.ndim < 2:
        return "vector"
    if {"gate", "router"} & set(segments) and parameter.shape[0] == _num_experts(config):
        return "gate"
    return "matrix"


def _num_experts(config: PreTrainedConfig) -> int:
    text = config.get_text_config()
    for name in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
        if getattr(text, name, None):
            return int(getattr(text, name))
    return 0


def _picked_experts(config: PreTrainedConfig) -> int:
    """Routed experts that one token uses."""
    text = config.get_text_config()
    for name in ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk"):
        picked = getattr(text, name, None)
        if isinstance(picked, int):
            return picked
    raise CheckpointError(
        f"a config of type {config.model_type!r} has experts, but not how many a token picks "
        "(num_experts_per_tok)"
    )


def _attention_layers(config: PreTrainedConfig) -> Iterator[int]:
    """The window of each layer that attends, 0 for an unlimited one."""
    text = config.get_text_config()
    if not getattr(text, "num_attention_heads", None):
        return
    window = getattr(text, "sliding_window", None) or 0
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        yield from (window for _ in range(text.num_hidden_layers))
        return
    for kind in kinds:
        if kind == "sliding_attention":
            yield window
        elif "attention" in kind and "linear" not in kind:
            yield 0


def _head_widths(config: PreTrainedConfig) -> tuple[int, int]:
    """Numbers in one query or key, and in one value."""
    text = config.get_text_config()
    rotary = getattr(text, "qk_rope_head_dim", None)
    if rotary and getattr(text, "qk_nope_head_dim", None):
        return text.qk_nope_head_dim + rotary, text.v_head_dim
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return width, width


def _attention_flops(config: PreTrainedConfig, *, attended: float) -> float:
    """Scores and weighted sums of one token, over all layers."""
    total = 0.0
    for window in _attention_layers(config):
        tokens = min(attended, window) if window else attended
        heads = config.get_text_config().num_attention_heads
        total += 2 * tokens * heads * sum(_head_widths(config))
    return total


def _cached_numbers(config: PreTrainedConfig) -> int:
    """Keys and values of one token, over all layers."""
    text = config.get_text_config()
    layers = sum(1 for _ in _attention_layers(config))
    if not layers:
        return 0
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return layers * heads * sum(_head_widths(config))


def _size_format(chosen: NumberFormat, tensors: list[_Tensor]) -> FormatSize:
    formats = {item.name: item for item in FORMATS}
    table = formats[chosen.embeddings or chosen.name]
    total = embedding = 0.0
    for tensor in tensors:
        if tensor.role == "embedding":
            bits = table.num_bits(rows=tensor.rows, columns=tensor.columns)
            embedding += bits
        elif tensor.role in ("vector", "gate") and chosen.bits < 16:
            bits = 32.0 * tensor.numel
        else:
            bits = chosen.num_bits(rows=tensor.rows, columns=tensor.columns)
        total += bits
    return FormatSize(chosen.name, _round_up(total), _round_up(embedding), table.name)


def _round_up(bits: float) -> int:
    # Sums of 1.6 bits must not depend on their order.
    return math.ceil(round(bits / 8, 3))


@dataclass(frozen=True)
class Fit:
    """Which number format brings a model under a budget of bytes."""

    bits_per_parameter: float
    """What the budget allows."""
    number_format: str
    """The most precise one that fits, or the smallest where none does."""
    kept_ratio: float
    """Share of the parameters that may stay in that format; 1 where all fit."""


def what_fits(parameters: int, budget_bytes: int) -> Fit:
    """The number format that reaches a budget, all parameters in it, scales of blocks counted.

    6 B parameters in 1.8 GB are 2.4 bits each, so 2-bit integers; 3 B in 500 MB are 1.33, less
    than ternary needs, so a fifth of the parameters has to go as well.
    """
    assert parameters > 0
    assert budget_bytes > 0
    bits = budget_bytes * 8 / parameters
    for item in FORMATS:
        if item.bits_per_weight <= bits:
            return Fit(bits, item.name, 1.0)
    smallest = FORMATS[-1]
    return Fit(bits, smallest.name, bits / smallest.bits_per_weight)


@dataclass(frozen=True)
class Speed:
    """What this machine computes per second in large float32 matrix products."""

    flops_per_second: float
    device: str
    num_threads: int


def measure_speed(*, device: torch.device, seconds: float = 0.3) -> Speed:
    """The best rate of 1024 x 1024 float32 products within the given time."""
    side = 1024
    left, right = torch.randn(2, side, side, device=device)
    product = left @ right
    best = math.inf
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.matmul(left, right, out=product)
        float(product[0, 0])
        best = min(best, time.perf_counter() - start)
    return Speed(2 * side**3 / best, str(device), torch.get_num_threads())


def estimate_training_seconds(size: ModelSize, *, num_tokens: int, speed: Speed) -> float:
    """Time to train on so many tokens, padding included; for planning, not for reports."""
    efficiency = SPARSE_EFFICIENCY if size.expert_parameters else DENSE_EFFICIENCY
    return size.training_flops * num_tokens / (speed.flops_per_second * efficiency)
