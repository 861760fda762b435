"""What a model consists of, before any of its weights exist: parameters, bytes, arithmetic.

The decoders that recipes describe are known by their shapes; any other architecture is built on the
meta device, which allocates nothing. Both give the parameters of the real module tree.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from limbeck.contracts.errors import CheckpointError
from limbeck.models.config import VISION_TYPE
from limbeck.models.decoder_sizes import DecoderSizes, SizedConfig
from limbeck.quantization.formats.base import Format, list_formats
from limbeck.sizing.attention import attention_flops, attention_widths, count_cached, find_number
from limbeck.sizing.decoders import Parameter, list_decoder_parameters
from limbeck.sizing.number_formats import FormatSize

ParameterRole = Literal[
    "embedding", "expert", "gate", "attention", "fusion", "matrix", "vector", "vision"
]
KV_BYTES = 2
"""Of one cached number, bfloat16."""
TRAINING_RATIO = 3
"""Arithmetic of forward and backward over that of forward: a product has two gradients."""
GATED_MATRICES = 3
"""Of a gated feed-forward block, each hidden x width."""
LAYER = re.compile(r".*?\.\d+(?=\.)")
"""The part of a parameter's name that it shares with its layer."""
NUM_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""What architectures call the number of routed experts."""
PICKED_EXPERTS = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk")
"""What they call the number that a token uses."""


@dataclass(frozen=True)
class ActivationWidths:
    """Widths that decide what a forward pass keeps for the backward pass, all layers together."""

    hidden: int
    vocab: int
    num_layers: int
    num_sparse_layers: int
    score_width: int
    """Numbers of queries and keys, all heads."""
    value_width: int
    """Numbers of values and of what attention makes of them."""
    feed_forward_width: int
    """Channels of a gated block that every token passes; another block's by its parameters."""
    moe_intermediate_size: int
    """Channels of the experts that a token picks."""
    fusion_width: int
    """Numbers that fusions project to, for a token and its picks."""
    num_experts: int
    picked_experts: int


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
    product_parameters: int
    """That some matrix product multiplies by, gates left out: those with a 16-bit copy while
    training in mixed precision."""
    unit_parameters: int
    """Of the largest layer or table: what sharded training gathers at a time."""
    unit_expert_parameters: int
    """Of the routed experts in that layer."""
    shape: ActivationWidths
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

    @property
    def picked_ratio(self) -> float:
        """Share of the routed experts that a token uses; 1 if dense."""
        shape = self.shape
        return shape.picked_experts / shape.num_experts if shape.num_experts else 1.0


@dataclass(frozen=True)
class _Tensor:
    role: ParameterRole
    unit: str
    """The layer, or the table, that it is gathered with."""
    numel: int
    rows: int
    columns: int
    products: float
    """How often one token multiplies by every weight."""


def size_model(config: SizedConfig, *, context_tokens: int) -> ModelSize:
    """What a causal language model costs, sparse or dense.

    Raises:
        CheckpointError: transformers cannot build the config as a causal language model.
    """
    assert context_tokens > 0
    tensors = list(_list_tensors(config))
    totals: Counter[str] = Counter()
    units: Counter[str] = Counter()
    unit_experts: Counter[str] = Counter()
    for tensor in tensors:
        totals[tensor.role] += tensor.numel
        units[tensor.unit] += tensor.numel
        unit_experts[tensor.unit] += tensor.numel if tensor.role == "expert" else 0
    largest = max(units, key=lambda unit: units[unit])
    shape = _find_shape(config, tensors, num_sparse_layers=sum(map(bool, unit_experts.values())))
    share = shape.picked_experts / shape.num_experts if totals["expert"] else 1.0
    parameters = totals.total()
    sparse = totals["expert"] + totals["gate"]
    used = totals["expert"] * share + totals["gate"]
    at_end, halfway = _count_flops(
        config, tensors, share=share, attended=(float(context_tokens), (context_tokens + 1) / 2)
    )
    return ModelSize(
        parameters=parameters,
        active_parameters=parameters
        - totals["vision"]
        - totals["expert"]
        + round(totals["expert"] * share),
        embedding_parameters=totals["embedding"],
        expert_parameters=totals["expert"],
        gate_parameters=totals["gate"],
        product_parameters=sum(
            tensor.numel for tensor in tensors if tensor.products and tensor.role != "gate"
        ),
        unit_parameters=units[largest],
        unit_expert_parameters=unit_experts[largest],
        shape=shape,
        context_tokens=context_tokens,
        forward_flops=at_end,
        training_flops=TRAINING_RATIO * halfway,
        kv_cache_bytes=count_cached(config) * KV_BYTES,
        skipped_ratio=1 - used / sparse if totals["expert"] else 0.0,
        formats=_size_formats(tensors),
    )


def _count_flops(
    config: SizedConfig,
    tensors: Iterable[_Tensor],
    *,
    share: float,
    attended: tuple[float, ...],
) -> list[float]:
    multiplied = sum(
        tensor.numel * tensor.products * (share if tensor.role == "expert" else 1.0)
        for tensor in tensors
    )
    return [2 * multiplied + attention_flops(config, attended=tokens) for tokens in attended]


def _find_shape(
    config: SizedConfig, tensors: list[_Tensor], *, num_sparse_layers: int
) -> ActivationWidths:
    text = config.get_text_config()
    by_role: Counter[str] = Counter()
    for tensor in tensors:
        by_role[tensor.role] += tensor.numel if tensor.products else 0
    picked = _picked_experts(config) if num_sparse_layers else 0
    num_experts = _num_experts(config) if num_sparse_layers else 0
    hidden = text.hidden_size
    score, value = attention_widths(config)
    experts = by_role["expert"] * picked / num_experts if num_experts else 0.0
    return ActivationWidths(
        hidden=hidden,
        vocab=text.vocab_size,
        num_layers=text.num_hidden_layers,
        num_sparse_layers=num_sparse_layers,
        score_width=score,
        value_width=value,
        feed_forward_width=round(by_role["matrix"] / (GATED_MATRICES * hidden)),
        moe_intermediate_size=round(experts / (GATED_MATRICES * hidden)),
        fusion_width=round(
            sum(tensor.rows * tensor.products for tensor in tensors if tensor.role == "fusion")
        ),
        num_experts=num_experts,
        picked_experts=picked,
    )


def _list_tensors(config: SizedConfig) -> Iterator[_Tensor]:
    """Every parameter once, with what it is for."""
    parameters = list_decoder_parameters(config)
    if parameters is None:
        # Slow to import: every other architecture is built, without its weights.
        from limbeck.sizing.module_tree import build_parameters

        assert not isinstance(config, DecoderSizes)
        parameters = build_parameters(config)
    for item in parameters:
        *rows, columns = item.shape or (1,)
        layer = LAYER.match(item.name)
        role = "embedding" if item.table else _find_role(item, config=config)
        yield _Tensor(
            role,
            layer[0] if layer else item.name,
            math.prod(item.shape),
            math.prod(rows),
            columns,
            float(item.table == "head") if item.table else _count_products(item.name, role, config),
        )


def _count_products(name: str, role: ParameterRole, config: SizedConfig) -> float:
    if role in ("vector", "vision") or (role == "expert" and name.endswith("bias")):
        return 0.0
    # A fusion looks at the outputs of every picked expert.
    if ".fusion.key" in name or ".fusion.value" in name:
        return float(_picked_experts(config))
    return 1.0


def _find_role(parameter: Parameter, *, config: SizedConfig) -> ParameterRole:
    segments = parameter.name.split(".")
    if config.model_type == VISION_TYPE and segments[0] != "language_model":
        return "vision"
    if "experts" in segments:
        return "expert"
    if len(parameter.shape) < 2:
        return "vector"
    if {"gate", "router"} & set(segments) and parameter.shape[0] == _num_experts(config):
        return "gate"
    if "fusion" in segments:
        return "fusion"
    return (
        "attention" if any("attn" in item or "attention" in item for item in segments) else "matrix"
    )


def _num_experts(config: SizedConfig) -> int:
    found = find_number(config.get_text_config(), *NUM_EXPERTS)
    if found:
        return found
    raise CheckpointError(
        f"a config of type {config.model_type!r} has experts, but not how many (num_experts)"
    )


def _picked_experts(config: SizedConfig) -> int:
    """Routed experts that one token uses."""
    found = find_number(config.get_text_config(), *PICKED_EXPERTS)
    if found:
        return found
    raise CheckpointError(
        f"a config of type {config.model_type!r} has experts, but not how many a token picks "
        "(num_experts_per_tok)"
    )


def _size_formats(tensors: list[_Tensor]) -> tuple[FormatSize, ...]:
    formats = list_formats()
    return tuple(
        _size_format(item, tensors, table=formats[item.embedding_format])
        for item in formats.values()
    )


def _size_format(chosen: Format, tensors: list[_Tensor], *, table: Format) -> FormatSize:
    total = embedding = expert = lookup = 0.0
    for tensor in tensors:
        if tensor.role in ("vector", "gate") and chosen.bits < 16:
            bits = 32.0 * tensor.numel
        else:
            stored = table if tensor.role == "embedding" else chosen
            bits = stored.num_bits(rows=tensor.rows, columns=tensor.columns)
        total += bits
        embedding += bits if tensor.role == "embedding" else 0.0
        lookup += bits if tensor.role == "embedding" and not tensor.products else 0.0
        expert += bits if tensor.role == "expert" else 0.0
    return FormatSize(
        chosen.kind,
        _round_up(total),
        _round_up(embedding),
        table.kind,
        _round_up(expert),
        _round_up(lookup),
    )


def _round_up(bits: float) -> int:
    # Sums of 1.6 bits must not depend on their order.
    return math.ceil(round(bits / 8, 3))
