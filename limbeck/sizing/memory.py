"""Memory of training and of serving, in bytes on one card, by how the state is divided.

State per parameter and its division: ZeRO (Rajbhandari et al. 2019, sec. 3 and 5,
arXiv:1910.02054). Activations are counted tensor by tensor as Korthikanti et al. 2022 do (sec. 4,
arXiv:2205.05198), for a layer with gated feed-forward, RMS norms, norms of queries and keys, and
fused attention, which keeps no scores.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from limbeck.contracts.fields import Precision
from limbeck.sizing.cards import Recomputing
from limbeck.sizing.number_formats import FormatSize
from limbeck.sizing.parameters import ActivationWidths, ModelSize

FLOAT_BYTES = 4
COMPUTE_BYTES: Mapping[Precision, int] = {"float32": 4, "bfloat16": 2}
"""Of one number in the forward pass."""
NORM_BYTES: Mapping[Precision, int] = {"float32": 12, "bfloat16": 10}
"""Kept for one channel of a norm: input and scaled input in float32, output as it is computed."""
COPIED_BYTES: Mapping[Precision, int] = {"float32": 0, "bfloat16": 6}
"""Of one channel of a layer: in bfloat16 each of q, k, v, gate and up casts its input anew."""
SCORE_BYTES: Mapping[Precision, int] = {"float32": 12, "bfloat16": 8}
"""Of one number of queries or keys: as projected, normalised, and rotated."""
LOGIT_COPIES = {"next_token": 3, "distill": 8}
"""Float32 numbers alive for one logit when the backward pass begins: logits, their log-softmax and
its gradient; a divergence holds both models' and their difference besides."""
GATE_COPIES = 4
"""Float32 numbers kept for one score of a gate: logits, scores, shares and their balance."""
GATED_COPIES = 4
"""Numbers kept for one channel of a gated block: gate, its activation, up, and their product."""
BUCKET_PARAMETERS = 500_000_000
"""Gradients that DeepSpeed exchanges at a time, by default; two such buckets overlap."""

StateKind = Literal["weights", "gradients", "optimizer"]
ExpertPlacement = Literal["gathered", "divided"]
"""Whether a card puts a layer's routed experts together, or keeps its own and exchanges tokens."""
LayoutName = Literal[
    "ddp", "zero0", "zero1", "zero2", "zero3", "fsdp2", "zero2_offload", "zero3_offload"
]


@dataclass(frozen=True)
class Layout:
    """How the state of training lies on cards."""

    title: str
    mixed: tuple[int, int, int]
    """Bytes per parameter of weights, gradients and AdamW's state when training in bfloat16."""
    full: tuple[int, int, int]
    """The same when training in float32."""
    divided: frozenset[StateKind] = frozenset()
    """What each card holds only its share of."""
    in_ram: frozenset[StateKind] = frozenset()
    """What the machine's memory holds instead of the cards."""
    casts: bool = False
    """Whether autocast keeps a 16-bit copy of float32 weights for the backward pass."""


_STATE: frozenset[StateKind] = frozenset({"optimizer", "gradients"})
_ALL: frozenset[StateKind] = frozenset({"optimizer", "gradients", "weights"})
_MIXED, _FULL = (2, 2, 12), (4, 4, 12)
"""DeepSpeed's: 16-bit weights and gradients; a float32 copy of the weights beside two moments."""
LAYOUTS: Mapping[LayoutName, Layout] = {
    "ddp": Layout("DDP", (4, 4, 8), (4, 4, 8), casts=True),
    "zero0": Layout("ZeRO-0", _MIXED, _FULL),
    "zero1": Layout("ZeRO-1", _MIXED, _FULL, divided=frozenset({"optimizer"})),
    "zero2": Layout("ZeRO-2", _MIXED, _FULL, divided=_STATE),
    "zero3": Layout("ZeRO-3", _MIXED, _FULL, divided=_ALL),
    "fsdp2": Layout("FSDP2", (4, 4, 8), (4, 4, 8), divided=_ALL),
    "zero2_offload": Layout("ZeRO-2, state in RAM", _MIXED, _FULL, divided=_STATE, in_ram=_STATE),
    "zero3_offload": Layout("ZeRO-3, all in RAM", _MIXED, _FULL, divided=_ALL, in_ram=_ALL),
}
"""`ddp` is what one process, and plain data parallelism, does: float32 weights, autocast. `zero0`
divides nothing: the base that ZeRO is compared with. State in RAM: ZeRO-Offload (Ren et al. 2021,
arXiv:2101.06840) and ZeRO-Infinity (Rajbhandari et al. 2021, arXiv:2104.07857)."""


@dataclass(frozen=True)
class TrainingStateBytes:
    """Bytes of weights, gradients and optimizer on one card, and in the machine's memory."""

    weights: int
    gradients: int
    optimizer: int
    ram: int

    @property
    def total(self) -> int:
        """On one card."""
        return self.weights + self.gradients + self.optimizer


def state_bytes(
    parameters: int, *, layout: LayoutName, num_cards: int, precision: Precision
) -> TrainingStateBytes:
    """What a layout holds of the model itself; RAM is that of all cards' machines together."""
    assert num_cards > 0
    chosen = LAYOUTS[layout]
    names: tuple[StateKind, ...] = ("weights", "gradients", "optimizer")
    per_parameter = chosen.mixed if precision == "bfloat16" else chosen.full
    on_card: dict[StateKind, int] = dict.fromkeys(names, 0)
    ram = 0
    for name, num_bytes in zip(names, per_parameter, strict=True):
        total = parameters * num_bytes
        if name in chosen.in_ram:
            ram += total
        else:
            on_card[name] = math.ceil(total / (num_cards if name in chosen.divided else 1))
    return TrainingStateBytes(on_card["weights"], on_card["gradients"], on_card["optimizer"], ram)


@dataclass(frozen=True)
class Workload:
    """What one card trains on at a time, and how."""

    records: int
    """Of one micro-batch."""
    record_tokens: int
    """Of its longest record, to which all are padded."""
    precision: Precision
    recomputing: Recomputing
    objective: Literal["next_token", "distill"] = "next_token"
    frozen_bytes: int = 0
    """Of a teacher that only runs forward beside the trained model, in the type it is stored in,
    whole on every card; recorded signals stand in for it."""
    reference_parameters: int = 0
    """Of the frozen start model that `dpo` and `grpo` compare with, in float32."""
    chunk_bytes: int = 0
    """Of the logits that exist at a time, where the loss is made in chunks; 0 where all do."""

    @property
    def tokens(self) -> int:
        """Of one micro-batch, padding included."""
        return self.records * self.record_tokens


def layer_bytes(shape: ActivationWidths, *, precision: Precision) -> int:
    """Kept for the backward pass for one token, all layers together."""
    compute = COMPUTE_BYTES[precision]
    block = 2 * NORM_BYTES[precision] + COPIED_BYTES[precision]
    picks = shape.num_sparse_layers * shape.picked_experts
    return (
        shape.num_layers * shape.hidden * block
        + shape.score_width * SCORE_BYTES[precision]
        + shape.value_width * compute
        + (shape.feed_forward_width + shape.moe_intermediate_size) * GATED_COPIES * compute
        # Each picked expert's input row and its output.
        + picks * 2 * shape.hidden * compute
        + shape.num_sparse_layers * shape.num_experts * GATE_COPIES * FLOAT_BYTES
        + shape.fusion_width * compute
    )


def activation_bytes(shape: ActivationWidths, workload: Workload) -> int:
    """Kept for the backward pass when it begins: layers, final norm, logits and their gradient.

    Every token is taken to carry a loss. With `recomputing` a layer keeps its input only, and one
    layer at a time its all. Of a loss in chunks one chunk's logits count in place of all.
    """
    layers = layer_bytes(shape, precision=workload.precision)
    if workload.recomputing == "layers":
        inputs = shape.num_layers * shape.hidden * FLOAT_BYTES
        layers = min(layers, inputs + layers // shape.num_layers)
    outside = NORM_BYTES[workload.precision] * shape.hidden
    logits = workload.tokens * FLOAT_BYTES * shape.vocab
    made = 0
    if workload.chunk_bytes:
        logits = min(logits, workload.chunk_bytes)
        # The gradients of the states and of the head are made on the way forward.
        made = FLOAT_BYTES * shape.hidden * (workload.tokens + shape.vocab)
    copies = LOGIT_COPIES[workload.objective]
    return workload.tokens * (layers + outside) + copies * logits + made


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one card at the peak of a training step."""

    layout: LayoutName
    weights: int
    gradients: int
    optimizer: int
    gathered: int
    """Weights that are put together, or cast, for the products at hand, and their gradients."""
    exchange: int
    """Buffers in which gradients travel."""
    activations: int
    frozen: int
    """A teacher that runs beside."""
    ram: int
    """In the memory of the machines, not in the total."""

    @property
    def total(self) -> int:
        """On one card."""
        return (
            self.weights
            + self.gradients
            + self.optimizer
            + self.gathered
            + self.exchange
            + self.activations
            + self.frozen
        )


def training_memory(
    size: ModelSize,
    workload: Workload,
    *,
    layout: LayoutName,
    num_cards: int,
    experts: ExpertPlacement = "gathered",
) -> TrainingMemory:
    """What a card holds at the peak of a step.

    Sharded layouts gather one layer's weights while the next one's are on their way, and its
    gradients before they are divided. With experts divided among the cards (expert parallelism,
    which Limbeck leaves to torchtitan and Megatron) routed experts are never gathered.
    """
    chosen, compute = LAYOUTS[layout], COMPUTE_BYTES[workload.precision]
    if "weights" in chosen.divided:
        # A divided head is whole in its own forward only, which makes all logits.
        workload = dataclasses.replace(workload, chunk_bytes=0)
    state = state_bytes(
        size.parameters, layout=layout, num_cards=num_cards, precision=workload.precision
    )
    unit = size.unit_parameters
    if experts == "divided":
        unit -= size.unit_expert_parameters
    gathered = exchange = 0
    if chosen.casts and workload.precision == "bfloat16":
        gathered = compute * size.product_parameters
    elif "weights" in chosen.divided and (num_cards > 1 or chosen.in_ram):
        gathered = 3 * compute * unit
    if layout == "ddp" and num_cards > 1:
        exchange = state.gradients
    elif layout.startswith("zero") and (num_cards > 1 or chosen.in_ram):
        exchange = 2 * compute * min(BUCKET_PARAMETERS, size.parameters)
    return TrainingMemory(
        layout,
        state.weights,
        state.gradients,
        state.optimizer,
        gathered,
        exchange,
        activation_bytes(size.shape, workload),
        workload.frozen_bytes + FLOAT_BYTES * workload.reference_parameters,
        state.ram,
    )


@dataclass(frozen=True)
class ServingMemory:
    """Bytes at the peak of answering, on all cards together."""

    number_format: str
    weights: int
    cache: int
    """Keys and values of all answers at their full length."""
    working: int
    """Numbers of one layer while a question is read, and the logits of every answer."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.working


def serving_memory(
    size: ModelSize, stored: FormatSize, *, batch_records: int, context_tokens: int
) -> ServingMemory:
    """What answering holds; weights are read as they are stored, the cache is 16-bit."""
    shape = size.shape
    layer = layer_bytes(shape, precision="bfloat16") // shape.num_layers
    working = batch_records * (context_tokens * layer + FLOAT_BYTES * shape.vocab)
    cache = batch_records * context_tokens * size.kv_cache_bytes
    return ServingMemory(stored.name, stored.total_bytes, cache, working)
