"""Verdicts of a plan in plain words: it fits, or what would make it fit."""

from limbeck.evaluation.report.number_format import byte_count, percent
from limbeck.sizing.cards import GPUS, Cards, Serving
from limbeck.sizing.fit import CardsNeeded, ServingFit, TrainingFit
from limbeck.sizing.memory import Workload, state_bytes
from limbeck.sizing.number_formats import BudgetFit
from limbeck.sizing.parameters import ModelSize

MOST_PRECISE = "float32"
"""The format in which nothing is reduced."""


def describe_training_fit(
    size: ModelSize,
    workload: Workload,
    cards: Cards,
    *,
    fit: TrainingFit | None,
    needed: CardsNeeded | None,
    larger: CardsNeeded | None,
) -> str:
    """Whether a training fits the cards, and the least that has to change."""
    usable = byte_count(cards.card.usable_bytes)
    if fit is not None:
        held = f"{byte_count(fit.memory.total)} of {usable} a card"
        if not fit.changes:
            return f"fits {cards} as it is: {held}"
        ram = f", {byte_count(fit.memory.ram)} of RAM" if fit.memory.ram else ""
        return f"fits {cards} with {', '.join(fit.changes)}: {held}{ram}"
    state = state_bytes(size.parameters, layout="zero0", num_cards=1, precision=workload.precision)
    there = byte_count(cards.count * cards.card.usable_bytes)
    text = (
        f"does not fit {cards}: weights, gradients and optimizer alone are "
        f"{byte_count(state.total)}, the cards have {there}"
    )
    ways = [_describe_needed(item, size) for item in (needed, larger) if item is not None]
    if not ways:
        ways = [f"one layer without its experts is more than a {cards.gpu} holds"]
    return f"{text}; {'; or '.join(ways)}"


def _describe_needed(needed: CardsNeeded, size: ModelSize) -> str:
    held = f"{byte_count(needed.memory.total)} of {byte_count(GPUS[needed.gpu].usable_bytes)} each"
    cards = (
        f"fits {needed.count:,} x {needed.gpu} with ZeRO-3, gradient checkpointing, one record a"
    )
    text = f"{cards} micro-batch ({held})"
    if needed.experts_divided:
        layer = byte_count(2 * size.unit_expert_parameters)
        text += (
            f" where each expert stays on its card: ZeRO-3 alone would gather {layer} of one "
            "layer's experts on every card, and Limbeck leaves expert parallelism to torchtitan "
            "and Megatron"
        )
    return text


def describe_serving_fit(fit: ServingFit, serving: Serving) -> str:
    """In which formats a model answers on the cards, or what would let it."""
    usable = byte_count(serving.card.usable_bytes * serving.count)
    at = f"{serving.batch_size} x {serving.context_tokens} tokens"
    if fit.fitting:
        best = next(item for item in fit.by_format if item.number_format == fit.fitting[0])
        return (
            f"fits {serving} at {at} in {', '.join(fit.fitting)}: {byte_count(best.total)} of "
            f"{usable} in {best.number_format}"
        )
    smallest = fit.by_format[-1]
    ways = []
    if fit.context_tokens:
        ways.append(
            f"{smallest.number_format} fits with a context of {fit.context_tokens:,} tokens"
        )
    if fit.kept_ratio:
        ways.append(
            f"{percent(fit.kept_ratio)} of the weights fit in {smallest.number_format}: prune the "
            "rest, or distil"
        )
    if fit.offloaded is not None:
        name, on_cards, in_ram = fit.offloaded
        ways.append(
            f"in {name} with all experts in {byte_count(in_ram)} of RAM and those that a token "
            f"picks on the card ({byte_count(on_cards)})"
        )
    ways.append(f"{fit.count} x {serving.gpu} in {smallest.number_format}")
    text = (
        f"does not fit {serving} at {at}: {byte_count(smallest.total)} in {smallest.number_format}"
    )
    return f"{text}, the card has {usable}; what would fit: {'; '.join(ways)}"


def describe_size_target(fit: BudgetFit) -> str:
    """What brings a model under a size, and what the size allows per parameter."""
    head = f"{fit.bits_per_parameter:.3g} bits a parameter"
    if fit.kept_ratio == 1:
        reached = f"{fit.number_format} ({byte_count(fit.total_bytes)})"
        return reached if fit.number_format == MOST_PRECISE else f"{head}: {reached}"
    if fit.kept_ratio == 0:
        return (
            f"{head}: no format; the embeddings alone are {byte_count(fit.total_bytes)} in int4: "
            "a smaller vocabulary, or a smaller model"
        )
    return (
        f"{head}: {fit.number_format} after {percent(1 - fit.kept_ratio)} of the weights outside "
        f"the embeddings are pruned ({byte_count(fit.total_bytes)})"
    )
