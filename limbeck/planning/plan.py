"""The rows of a plan: one per entry, with its size, its training, and where it can answer."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from limbeck.distillation.losses.chunked import CHUNK_BYTES
from limbeck.models.forward import PLAIN_HEADS
from limbeck.pipeline.check import Entry
from limbeck.planning.resolve import Architectures, Known, Resolver
from limbeck.planning.verdicts import (
    describe_serving_fit,
    describe_size_target,
    describe_training_fit,
)
from limbeck.sizing.assumptions import Assumptions
from limbeck.sizing.fit import (
    CardsNeeded,
    TrainingFit,
    count_cards,
    find_larger_card,
    fit_serving,
    fit_training,
    least_workload,
)
from limbeck.sizing.hardware import (
    GPUS,
    Cards,
    Speed,
    decode_tokens_per_second,
    estimate_training_seconds,
    measure_speed,
    training_tokens_per_second,
)
from limbeck.sizing.memory import LAYOUTS, TrainingMemory, Workload, training_memory
from limbeck.sizing.number_formats import fit_budget
from limbeck.sizing.parameters import ModelSize, size_model


def plan(entries: Mapping[str, Entry], *, root: Path, assumed: Mapping[str, Any]) -> dict[str, Any]:
    """One row per entry, and the assumptions behind the rows.

    `root` is the run's folder, `assumed` the recipe's key `plan`.

    Raises:
        CheckpointError: a model cannot be read, or cannot be sized.
    """
    assumptions = Assumptions.model_validate(assumed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    speed = measure_speed(device=device)
    resolver = Resolver(root=root, assumed=assumptions)
    rows = []
    for entry in entries.values():
        found = resolver.find(entry)
        row = {"name": entry.name, "stage": entry.config.stage}
        if found is not None:
            row |= _describe(entry, found, resolver, speed)
        rows.append(row)
    return {
        "rows": rows,
        "seconds": sum(row.get("seconds", 0.0) for row in rows),
        "speed": dataclasses.asdict(speed),
        "corpora": {
            name: {
                "vocab": len(item.vocabulary),
                "record_tokens": item.record_tokens,
                "assumed": not item.measured,
            }
            for name, item in resolver.corpora.items()
        },
        "assumed": assumptions.model_dump(mode="json"),
        "cards": {
            name: dataclasses.asdict(GPUS[name])
            for name in (assumptions.training.gpu, assumptions.inference.gpu)
        },
    }


def _describe(
    entry: Entry, found: Architectures, resolver: Resolver, speed: Speed
) -> dict[str, Any]:
    known = resolver.know(entry)
    longest = getattr(found.made.get_text_config(), "max_position_embeddings", None) or 2**31
    assumed = resolver.assumed
    context = min(assumed.inference.context_tokens, longest)
    size = size_model(found.made, context_tokens=context)
    row: dict[str, Any] = {
        "parameters": size.parameters,
        "active_parameters": size.active_parameters,
        "embedding_parameters": size.embedding_parameters,
        "expert_parameters": size.expert_parameters,
        "skipped_expert_ratio": size.skipped_ratio,
        "context_tokens": context,
        "forward_flops_per_token": size.forward_flops,
        "kv_cache_bytes_per_token": size.kv_cache_bytes,
        "bytes": {item.name: item.total_bytes for item in size.formats},
        "inference": _plan_serving(size, assumed),
        "size_targets": {
            name: _plan_target(size, budget) for name, budget in assumed.size_targets_bytes.items()
        },
    }
    if hasattr(entry.config, "training"):
        # Attention costs what the records' own length makes it cost.
        tokens = max(1, min(longest, round(known.record_tokens)))
        trained = size_model(found.trained, context_tokens=tokens)
        row |= _plan_training(entry, trained, known, resolver, speed, found.trained)
    return row


def _plan_target(size: ModelSize, budget: int) -> dict[str, Any]:
    fit = fit_budget(size.formats, parameters=size.parameters, budget_bytes=budget)
    return dataclasses.asdict(fit) | {"verdict": describe_size_target(fit)}


def _plan_serving(size: ModelSize, assumed: Assumptions) -> dict[str, Any]:
    serving = assumed.inference.replace(context_tokens=size.context_tokens)
    fit = fit_serving(size, serving)
    return {
        "cards": str(serving),
        "usable_bytes": serving.card.usable_bytes * serving.count,
        "by_format": {
            memory.number_format: dataclasses.asdict(memory)
            | {
                "total": memory.total,
                "fits": memory.number_format in fit.fitting,
                "tokens_per_second": decode_tokens_per_second(size, stored, serving),
            }
            for memory, stored in zip(fit.by_format, size.formats, strict=True)
        },
        "fitting": fit.fitting,
        "fits_with_context_tokens": fit.context_tokens,
        "fits_with_kept_ratio": fit.kept_ratio,
        "experts_in_ram": fit.offloaded,
        "cards_needed": fit.count,
        "verdict": describe_serving_fit(fit, serving),
    }


def _plan_training(
    entry: Entry,
    size: ModelSize,
    known: Known,
    resolver: Resolver,
    speed: Speed,
    trained: PreTrainedConfig,
) -> dict[str, Any]:
    settings: Any = entry.config
    batching, cards = settings.batching, resolver.assumed.training
    step_records = batching.per_device_train_batch_size * batching.gradient_accumulation_steps
    reads = settings.objective.sequences_per_record
    step_tokens = step_records * reads * known.record_tokens
    training = settings.training.resolve_steps(tokens_per_step=step_tokens)
    num_tokens = int(training.max_steps * step_tokens)
    teachers = resolver.find_live_teachers(entry)
    workload = Workload(
        records=batching.per_device_train_batch_size * reads,
        record_tokens=resolver.know(entry).longest_tokens,
        precision=settings.training.precision,
        recomputing=settings.training.gradient_checkpointing,
        objective="distill" if settings.objective.needs() else "next_token",
        frozen_bytes=sum(
            size_model(teacher, context_tokens=1).parameters * _stored_bytes(teacher)
            for teacher in teachers
        ),
        reference_parameters=size.parameters if reads > 1 else 0,
        chunk_bytes=CHUNK_BYTES if _is_chunked(entry, [trained, *teachers]) else 0,
    )
    fit = fit_training(size, workload, cards)
    needed = None if fit else count_cards(size, workload, cards.gpu)
    larger = None
    if fit is None and (needed is None or needed.experts_divided):
        larger = find_larger_card(size, workload, cards.card)
    return {
        "training_tokens": num_tokens,
        "seconds": estimate_training_seconds(size, num_tokens=num_tokens, speed=speed),
        "training": {
            "cards": str(cards),
            "usable_bytes": cards.card.usable_bytes,
            "workload": dataclasses.asdict(workload),
            "flops_per_token": size.training_flops,
            "by_layout": {
                layout: _total(
                    training_memory(size, workload, layout=layout, num_cards=cards.count)
                )
                for layout in LAYOUTS
            },
            "fit": _describe_fit(fit, size, cards, num_tokens) if fit else None,
            "needed": _describe_needed(needed, size, workload, num_tokens),
            "larger": _describe_needed(larger, size, workload, num_tokens),
            "verdict": describe_training_fit(
                size, workload, cards, fit=fit, needed=needed, larger=larger
            ),
        },
    }


def _stored_bytes(model: PreTrainedConfig) -> int:
    """Of one parameter; float32 where the config does not say."""
    dtype = model.dtype if isinstance(model.dtype, torch.dtype) else torch.float32
    return dtype.itemsize


def _is_chunked(entry: Entry, models: Sequence[PreTrainedConfig]) -> bool:
    """Whether neither the student nor its teacher makes its logits as a whole.

    A quantised head makes them all; several teachers are mixed, and drawn experts too, as a whole.
    """
    settings: Any = entry.config
    drawn = getattr(getattr(settings, "router_sampling", None), "num_samples", 0)
    num_teachers = sum(item.field == "teacher" for item in entry.references)
    if settings.stage == "quantize" or drawn or num_teachers > 1:
        return False
    texts = [model.get_text_config() for model in models]
    return all(
        text.model_type in PLAIN_HEADS and settings.objective.chunks_logits(vocab=text.vocab_size)
        for text in texts
    )


def _total(memory: TrainingMemory) -> dict[str, Any]:
    return dataclasses.asdict(memory) | {"total": memory.total}


def _describe_fit(
    fit: TrainingFit, size: ModelSize, cards: Cards, num_tokens: int
) -> dict[str, Any]:
    # State in RAM waits for the link to it, which is not estimated.
    rate = None
    if not LAYOUTS[fit.memory.layout].in_ram:
        rate = training_tokens_per_second(
            size, cards, precision=fit.workload.precision, recomputing=fit.workload.recomputing
        )
    return {
        "changes": fit.changes,
        "memory": _total(fit.memory),
        "tokens_per_second": rate,
        "seconds": num_tokens / rate if rate else None,
    }


def _describe_needed(
    needed: CardsNeeded | None, size: ModelSize, workload: Workload, num_tokens: int
) -> dict[str, Any] | None:
    if needed is None:
        return None
    least = least_workload(workload)
    rate = training_tokens_per_second(
        size,
        Cards(gpu=needed.gpu, count=needed.count),
        precision=least.precision,
        recomputing=least.recomputing,
    )
    return {
        "cards": f"{needed.count} x {needed.gpu}",
        "experts_divided": needed.experts_divided,
        "memory": _total(needed.memory),
        "tokens_per_second": rate,
        "seconds": num_tokens / rate,
    }
