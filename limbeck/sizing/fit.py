"""What fits on given cards, and the cheapest change that makes it fit, each step computed."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from limbeck.sizing.cards import GPUS, Cards, Gpu, Recomputing, Serving
from limbeck.sizing.memory import (
    LAYOUTS,
    ExpertPlacement,
    LayoutName,
    ServingMemory,
    TrainingMemory,
    Workload,
    serving_memory,
    training_memory,
)
from limbeck.sizing.parameters import ModelSize

ON_CARDS: tuple[LayoutName, ...] = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
OFF_CARDS: tuple[LayoutName, ...] = ("zero2_offload", "zero3_offload")
RECOMPUTING: tuple[Recomputing, ...] = ("none", "layers")


@dataclass(frozen=True)
class TrainingFit:
    """A way to train that fits, and what it changes of what was asked for."""

    workload: Workload
    memory: TrainingMemory
    changes: tuple[str, ...]
    """Empty where it fits as it is."""


@dataclass(frozen=True)
class CardsNeeded:
    """How many cards hold a training with everything divided, the least on each."""

    gpu: str
    count: int
    memory: TrainingMemory
    experts_divided: bool
    """Whether routed experts must stay on their cards (expert parallelism)."""


def fit_training(size: ModelSize, workload: Workload, cards: Cards) -> TrainingFit | None:
    """The cheapest way to train on the cards, or None.

    Tried in order, innermost first: how state is divided, recomputing layers, smaller micro-batches
    with more accumulation, recorded signals instead of a live teacher, state in RAM.
    """
    for changed, layout, changes in _variants(workload, cards):
        memory = training_memory(size, changed, layout=layout, num_cards=cards.count)
        if memory.total <= cards.card.usable_bytes:
            return TrainingFit(changed, memory, changes)
    return None


def _variants(
    workload: Workload, cards: Cards
) -> Iterator[tuple[Workload, LayoutName, tuple[str, ...]]]:
    on_cards = ON_CARDS if cards.count > 1 else ON_CARDS[:1]
    recomputing = RECOMPUTING[RECOMPUTING.index(workload.recomputing) :]
    for layouts in (on_cards, OFF_CARDS):
        for frozen in dict.fromkeys((workload.frozen_bytes, 0)):
            for records in _halve(workload.records):
                for recompute in recomputing:
                    for layout in layouts:
                        changed = dataclasses.replace(
                            workload,
                            records=records,
                            recomputing=recompute,
                            frozen_bytes=frozen,
                        )
                        yield changed, layout, _describe_changes(workload, changed, layout)


def _halve(records: int) -> Iterator[int]:
    while records > 1:
        yield records
        records = math.ceil(records / 2)
    yield 1


def _describe_changes(asked: Workload, changed: Workload, layout: LayoutName) -> tuple[str, ...]:
    changes = []
    if layout != "ddp":
        changes.append(LAYOUTS[layout].title)
    if changed.recomputing != asked.recomputing:
        changes.append("gradient checkpointing")
    if changed.records != asked.records:
        changes.append(f"micro-batches of {changed.records} instead of {asked.records} records")
    if changed.frozen_bytes != asked.frozen_bytes:
        changes.append("recorded signals instead of the live teacher")
    return tuple(changes)


def least_workload(workload: Workload) -> Workload:
    """One record at a time, layers recomputed, no live teacher."""
    return dataclasses.replace(workload, records=1, recomputing="layers", frozen_bytes=0)


def count_cards(size: ModelSize, workload: Workload, gpu: str) -> CardsNeeded | None:
    """The fewest cards that train the least workload with ZeRO-3, experts gathered if possible.

    None where even a share of nothing leaves no room: one layer without its experts is too large.
    """
    least = least_workload(workload)
    card = GPUS[gpu]
    ways: tuple[ExpertPlacement, ...] = ("gathered", "divided")
    for experts in ways if size.unit_expert_parameters else ways[:1]:
        measure = partial(training_memory, size, least, layout="zero3", experts=experts)
        count = _count(measure(num_cards=2), card)
        if count is not None:
            return CardsNeeded(gpu, count, measure(num_cards=count), experts == "divided")
    return None


def _count(memory: TrainingMemory, card: Gpu) -> int | None:
    """How many cards, given what two hold: the state shrinks with their number, the rest stays."""
    state = 2 * (memory.weights + memory.gradients + memory.optimizer)
    room = card.usable_bytes - (memory.total - state / 2)
    return max(2, math.ceil(state / room)) if room > 0 else None


def find_larger_card(size: ModelSize, workload: Workload, than: Gpu) -> CardsNeeded | None:
    """The smallest known card, larger than a given one, on some number of which training fits."""
    for name, card in sorted(GPUS.items(), key=lambda item: item[1].memory_bytes):
        if card.memory_bytes > than.memory_bytes:
            needed = count_cards(size, workload, name)
            if needed is not None and not needed.experts_divided:
                return needed
    return None


@dataclass(frozen=True)
class ServingFit:
    """What answers fit on cards, in each number format, and what would make one fit."""

    by_format: tuple[ServingMemory, ...]
    fitting: tuple[str, ...]
    """Formats that fit, most precise first."""
    context_tokens: int
    """Longest context with which the smallest format fits; 0 where its weights alone do not."""
    kept_ratio: float
    """Share of the weights that fits in the smallest format, at the full context; 1 if all."""
    offloaded: tuple[str, int, int] | None
    """Where experts can lie in RAM: the format, bytes on the cards, bytes in RAM."""
    count: int
    """Cards of the kind that hold the smallest format."""


def fit_serving(size: ModelSize, serving: Serving) -> ServingFit:
    """How a model can answer on the cards."""
    room = serving.card.usable_bytes * serving.count
    found = [
        serving_memory(
            size,
            stored,
            batch_records=serving.batch_size,
            context_tokens=serving.context_tokens,
        )
        for stored in size.formats
    ]
    fitting = tuple(memory.number_format for memory in found if memory.total <= room)
    smallest = found[-1]
    beside = smallest.cache + smallest.working
    return ServingFit(
        by_format=tuple(found),
        fitting=fitting,
        context_tokens=_longest_context(size, smallest, serving, room=room),
        kept_ratio=min(1.0, max(0.0, (room - beside) / smallest.weights)),
        offloaded=None if fitting else _offload(size, found, room=room),
        count=math.ceil(smallest.total / serving.card.usable_bytes),
    )


def _longest_context(size: ModelSize, memory: ServingMemory, serving: Serving, *, room: int) -> int:
    stored = size.formats[-1]
    empty = serving_memory(size, stored, batch_records=serving.batch_size, context_tokens=0)
    left = room - empty.total
    if left <= 0:
        return 0
    per_token = (memory.total - empty.total) / serving.context_tokens
    return min(serving.context_tokens, int(left / per_token)) if per_token else 0


def _offload(
    size: ModelSize, found: Sequence[ServingMemory], *, room: int
) -> tuple[str, int, int] | None:
    """The most precise format whose picked experts, and all that is no expert, fit on the cards."""
    for memory, stored in zip(found, size.formats, strict=True):
        on_cards = memory.total - int((1 - size.picked_ratio) * stored.expert_bytes)
        if stored.expert_bytes and on_cards <= room:
            return stored.name, on_cards, stored.expert_bytes
    return None
