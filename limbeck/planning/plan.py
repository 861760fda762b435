"""The rows of a plan: one per entry, with its size, its training, and where it can answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from limbeck.contracts.errors import CheckpointError
from limbeck.distillation.losses.config import CHUNK_BYTES
from limbeck.models.config import PLAIN_HEADS
from limbeck.models.decoder_sizes import SizedConfig
from limbeck.pipeline.entry import Entry
from limbeck.pipeline.known_models import MODEL_KINDS, TrainsModel
from limbeck.planning.resolve import Known, Resolver, SamplesExperts
from limbeck.planning.rows import (
    CardsWay,
    CorpusFacts,
    FittingWay,
    FormatServing,
    ModelCost,
    Peak,
    Plan,
    PlanRow,
    ServingOnCards,
    SizeTarget,
    TrainingCost,
    TrainingOnCards,
)
from limbeck.planning.verdicts import (
    describe_serving_fit,
    describe_size_target,
    describe_training_fit,
)
from limbeck.sizing.assumptions import Assumptions
from limbeck.sizing.attention import find_number
from limbeck.sizing.cards import GPUS, Cards
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
    decode_tokens_per_second,
    estimate_training_seconds,
    training_tokens_per_second,
)
from limbeck.sizing.machine_speed import Speed, measure_speed
from limbeck.sizing.memory import FLOAT_BYTES, LAYOUTS, TrainingMemory, Workload, training_memory
from limbeck.sizing.number_formats import fit_budget
from limbeck.sizing.parameters import ModelSize, size_model


def plan(entries: Mapping[str, Entry], *, root: Path, assumed: Mapping[str, object]) -> Plan:
    """One row per entry, and the assumptions behind the rows.

    `root` is the run's folder, `assumed` the recipe's key `plan`.

    Raises:
        CheckpointError: a model cannot be read, or cannot be sized.
    """
    assumptions = Assumptions.model_validate(assumed)
    speed = measure_speed()
    resolver = Resolver(entries, root=root, assumed=assumptions)
    rows = tuple(_make_row(entry, resolver, speed) for entry in entries.values())
    return Plan(
        rows=rows,
        seconds=sum((row.trained.seconds for row in rows if row.trained), start=0.0),
        speed=speed,
        corpora={
            name: CorpusFacts(len(item.vocabulary), item.record_tokens, not item.measured)
            for name, item in resolver.corpora.items()
            if name  # an entry may need none
        },
        assumed=assumptions,
        cards={name: GPUS[name] for name in (assumptions.training.gpu, assumptions.inference.gpu)},
    )


def list_models(
    entries: Mapping[str, Entry], *, root: Path, assumed: Mapping[str, object]
) -> dict[str, SizedConfig]:
    """The model that each entry makes, entries with equal models once.

    Raises:
        CheckpointError: a model cannot be read.
    """
    resolver = Resolver(entries, root=root, assumed=Assumptions.model_validate(assumed))
    found: dict[str, SizedConfig] = {}
    for entry in entries.values():
        known = resolver.models.find(entry)
        if known is not None:
            sizes = known.made.sizes
            if all(sizes.to_dict() != other.to_dict() for other in found.values()):
                found[entry.name] = sizes
    return found


def _make_row(entry: Entry, resolver: Resolver, speed: Speed) -> PlanRow:
    found = resolver.models.find(entry)
    if found is None and entry.config.make in MODEL_KINDS:
        raise CheckpointError(
            f"{entry.name}: the config of the model that it starts from cannot be read, so it "
            "cannot be sized; name a folder, or one on the hub that this machine reaches"
        )
    if found is None:
        return PlanRow(entry.name, entry.config.stage, None, None)
    made, started = found.made.sizes, found.trained.sizes
    known = resolver.know(entry)
    longest = find_number(made.get_text_config(), "max_position_embeddings") or 2**31
    context = min(resolver.assumed.inference.context_tokens, longest)
    size = size_model(made, context_tokens=context)
    trained = None
    # A model may be pruned without any training.
    if isinstance(entry.config, TrainsModel) and dict(entry.config).get("training") is not None:
        # Attention costs what the records' own length makes it cost.
        tokens = max(1, min(longest, round(known.record_tokens)))
        trained = _plan_training(
            entry,
            entry.config,
            size_model(started, context_tokens=tokens),
            known=known,
            resolver=resolver,
            speed=speed,
            started=started,
        )
    return PlanRow(entry.name, entry.config.stage, _plan_model(size, resolver.assumed), trained)


def _plan_model(size: ModelSize, assumed: Assumptions) -> ModelCost:
    return ModelCost(
        parameters=size.parameters,
        active_parameters=size.active_parameters,
        embedding_parameters=size.embedding_parameters,
        expert_parameters=size.expert_parameters,
        skipped_expert_ratio=size.skipped_ratio,
        context_tokens=size.context_tokens,
        forward_flops_per_token=size.forward_flops,
        kv_cache_bytes_per_token=size.kv_cache_bytes,
        bytes={item.name: item.total_bytes for item in size.formats},
        inference=_plan_serving(size, assumed),
        size_targets={
            name: _plan_target(size, budget) for name, budget in assumed.size_targets_bytes.items()
        },
    )


def _plan_target(size: ModelSize, budget: int) -> SizeTarget:
    fit = fit_budget(size.formats, parameters=size.parameters, budget_bytes=budget)
    return SizeTarget(fit, describe_size_target(fit))


def _plan_serving(size: ModelSize, assumed: Assumptions) -> ServingOnCards:
    serving = assumed.inference.replace(context_tokens=size.context_tokens)
    fit = fit_serving(size, serving)
    return ServingOnCards(
        cards=str(serving),
        usable_bytes=serving.card.usable_bytes * serving.count,
        by_format={
            memory.number_format: FormatServing(
                memory,
                memory.total,
                memory.number_format in fit.fitting,
                decode_tokens_per_second(size, stored, serving),
            )
            for memory, stored in zip(fit.by_format, size.formats, strict=True)
        },
        fitting=fit.fitting,
        fits_with_context_tokens=fit.context_tokens,
        fits_with_kept_ratio=fit.kept_ratio,
        experts_in_ram=fit.offloaded,
        cards_needed=fit.count,
        verdict=describe_serving_fit(fit, serving),
    )


def _plan_training(
    entry: Entry,
    config: TrainsModel,
    size: ModelSize,
    *,
    known: Known,
    resolver: Resolver,
    speed: Speed,
    started: SizedConfig,
) -> TrainingCost:
    batching, cards = config.batching, resolver.assumed.training
    step_records = batching.per_device_train_batch_size * batching.gradient_accumulation_steps
    reads = config.objective.sequences_per_record
    step_tokens = step_records * reads * known.record_tokens
    training = config.training.resolve_steps(tokens_per_step=step_tokens)
    num_tokens = int(training.max_steps * step_tokens)
    teachers = [item.sizes for item in resolver.models.live_teachers(entry)]
    workload = Workload(
        records=batching.per_device_train_batch_size * reads,
        record_tokens=known.longest_tokens,
        precision=config.training.precision,
        recomputing=config.training.gradient_checkpointing,
        objective="distill" if config.objective.needs() else "next_token",
        frozen_bytes=sum(
            size_model(teacher, context_tokens=1).parameters * _stored_bytes(teacher)
            for teacher in teachers
        ),
        reference_parameters=size.parameters if reads > 1 else 0,
        chunk_bytes=CHUNK_BYTES if _is_chunked(entry, config, [started, *teachers]) else 0,
    )
    seconds = estimate_training_seconds(size, num_tokens=num_tokens, speed=speed)
    return TrainingCost(num_tokens, seconds, _fit_cards(size, workload, cards, num_tokens))


def _fit_cards(
    size: ModelSize, workload: Workload, cards: Cards, num_tokens: int
) -> TrainingOnCards:
    fit = fit_training(size, workload, cards)
    needed = None if fit else count_cards(size, workload, cards.gpu)
    larger = None
    if fit is None and (needed is None or needed.experts_divided):
        larger = find_larger_card(size, workload, cards.card)
    return TrainingOnCards(
        cards=str(cards),
        usable_bytes=cards.card.usable_bytes,
        workload=workload,
        flops_per_token=size.training_flops,
        by_layout={
            layout: _peak(training_memory(size, workload, layout=layout, num_cards=cards.count))
            for layout in LAYOUTS
        },
        fit=_describe_fit(fit, size, cards, num_tokens) if fit else None,
        needed=_describe_needed(needed, size, workload, num_tokens) if needed else None,
        larger=_describe_needed(larger, size, workload, num_tokens) if larger else None,
        verdict=describe_training_fit(size, workload, cards, fit=fit, needed=needed, larger=larger),
    )


def _stored_bytes(model: SizedConfig) -> int:
    """Of one parameter; float32 where the config does not say."""
    if model.dtype is None:
        return FLOAT_BYTES
    # Slow to import, and imported already by the config that states a type.
    import torch

    return model.dtype.itemsize if isinstance(model.dtype, torch.dtype) else FLOAT_BYTES


def _is_chunked(entry: Entry, config: TrainsModel, models: Sequence[SizedConfig]) -> bool:
    """Whether neither the student nor its teacher makes its logits as a whole.

    A quantised head makes them all; several teachers are mixed, and drawn experts too, as a whole.
    """
    sampled = isinstance(config, SamplesExperts) and config.router_sampling.num_samples > 0
    num_teachers = sum(item.field == "teacher" for item in entry.references)
    if entry.config.stage == "quantize" or sampled or num_teachers > 1:
        return False
    texts = [model.get_text_config() for model in models]
    return all(
        text.model_type in PLAIN_HEADS and config.objective.chunks_logits(vocab=text.vocab_size)
        for text in texts
    )


def _peak(memory: TrainingMemory) -> Peak:
    return Peak(memory, memory.total)


def _describe_fit(fit: TrainingFit, size: ModelSize, cards: Cards, num_tokens: int) -> FittingWay:
    # State in RAM waits for the link to it, which is not estimated.
    rate = None
    if not LAYOUTS[fit.memory.layout].in_ram:
        rate = training_tokens_per_second(
            size, cards, precision=fit.workload.precision, recomputing=fit.workload.recomputing
        )
    seconds = num_tokens / rate if rate else None
    return FittingWay(fit.changes, _peak(fit.memory), rate, seconds)


def _describe_needed(
    needed: CardsNeeded, size: ModelSize, workload: Workload, num_tokens: int
) -> CardsWay:
    least = least_workload(workload)
    rate = training_tokens_per_second(
        size,
        Cards(gpu=needed.gpu, count=needed.count),
        precision=least.precision,
        recomputing=least.recomputing,
    )
    return CardsWay(
        f"{needed.count} x {needed.gpu}",
        needed.experts_divided,
        _peak(needed.memory),
        rate,
        num_tokens / rate,
    )
