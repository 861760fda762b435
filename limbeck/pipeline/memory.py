"""Models that this machine cannot hold, found before a run starts."""

from collections.abc import Collection, Iterator, Mapping

from limbeck.contracts.errors import Fault, LimbeckError, RecipeError
from limbeck.contracts.recipe import Recipe
from limbeck.env.machine import describe_machine
from limbeck.models.known import KnownModel
from limbeck.models.vocabulary import Vocabulary
from limbeck.pipeline.entry import Entry
from limbeck.pipeline.known_models import MODEL_FIELDS, KnownModels, TrainsModel

LEAST_VOCAB = 260
"""Of a tokenizer that is not trained yet: what is counted is the least that a model takes."""
FLOAT_BYTES, TRAINED_BYTES = 4, 16
"""Of one parameter in float32, alone and with its gradient and AdamW's two moments."""


def check_memory(
    recipe: Recipe, entries: Mapping[str, Entry], *, made: Collection[str] = ()
) -> None:
    """Refuse a recipe that loads or trains a model larger than this machine's memory.

    Entries that are `made` already are not judged. Weights and the state of training alone count,
    so what passes may still be too large.

    Raises:
        RecipeError: with every such entry.
    """
    models = KnownModels(entries, vocabulary=lambda entry: Vocabulary(LEAST_VOCAB))
    room = describe_machine().memory_bytes
    faults = [
        fault
        for entry in entries.values()
        if entry.name not in made
        for fault in _check_entry(recipe, entry, models, room=room)
    ]
    if faults:
        raise RecipeError(recipe.path, faults)


def _check_entry(
    recipe: Recipe, entry: Entry, models: KnownModels, *, room: int
) -> Iterator[Fault]:
    inputs = models.inputs(entry)
    start = () if inputs.start is None else (inputs.start,)
    named = next((field for field in MODEL_FIELDS if field in dict(entry.config)), "")
    loaded = {"models": inputs.named("models"), named: start}
    trains = isinstance(entry.config, TrainsModel) and not _trains_on_gpu()
    for field, found in loaded.items():
        for model in found:
            needed = _count_bytes(model, TRAINED_BYTES if trains else FLOAT_BYTES)
            if needed > room:
                what = "weights, gradients and AdamW's state" if trains else "weights"
                where = f"{entry.name}.{field}" if field else entry.name
                message = (
                    f"{model.name}: {what} take {needed / 1e9:,.1f} GB in float32, and this "
                    f"machine has {room / 1e9:,.1f} GB of memory; name a smaller model, or run the "
                    "recipe on a larger machine (`limbeck plan` shows what each entry takes)"
                )
                yield Fault(where, message, recipe.line(entry.name, field))


def _trains_on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _count_bytes(model: KnownModel, bytes_per_parameter: int) -> int:
    from limbeck.sizing.parameters import size_model

    if model.number_format != "float32":
        return 0  # a fourth of what it was made from, which has been judged
    try:
        return size_model(model.sizes, context_tokens=1).parameters * bytes_per_parameter
    except LimbeckError:
        return 0  # `limbeck plan` names a config that lacks what sizes need
