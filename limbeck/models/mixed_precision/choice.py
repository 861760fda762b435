"""Layers of a model that get more bits: each rounded alone, in every format that it may get.

Left out: embeddings and the language head, whose format a scheme says; stacked experts, which stay
floats; and layers that the scheme's own `layers` means, which keep what it says.
"""

from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.env.progress import track
from limbeck.models.mixed_precision.config import MixedPrecision
from limbeck.models.rounding_costs import Predictions, measure_alone, predict
from limbeck.quantization.allocation import Option, allocate
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.qat import choose_format, find_replaced, is_table

FLOAT_BYTES = 4


def choose_layers(
    model: PreTrainedModel,
    *,
    number_format: QuantizedFormat,
    config: MixedPrecision,
    input_ids: Int[Tensor, "prompts tokens"],
) -> QuantizedFormat:
    """The format, with the layers that get another one by name.

    What rounding costs a layer is KL(floats || that layer alone rounded), in nats a position.

    Raises:
        CheckpointError: the model takes more bytes even where no layer gets more bits.
    """
    check_bytes(model, number_format=number_format, config=config)
    candidates = (number_format, *config.formats)
    floats = predict(model, input_ids=input_ids)
    options = {}
    names = list_choosable(model, number_format=number_format)
    with track("mixed precision", total=len(names), unit="layer") as advance:
        for name in names:
            options[name] = [
                _measure(model, name, number_format=item, floats=floats) for item in candidates
            ]
            advance(1)
    others = count_bytes(model, number_format=number_format) - sum(
        found[0].num_bytes for found in options.values()
    )
    chosen = allocate(options, max_bytes=config.max_bytes - others)
    named = {name: candidates[index] for name, index in chosen.items() if index}
    return number_format.model_copy(update={"layers": {**number_format.layers, **named}})


def check_bytes(
    model: PreTrainedModel,
    *,
    number_format: QuantizedFormat,
    config: MixedPrecision,
    counts_tables: bool = True,
) -> None:
    """Accept a limit; the model may be one without numbers, and with tables of any length.

    Raises:
        CheckpointError: the model takes more bytes even where no layer gets more bits.
    """
    least = count_bytes(model, number_format=number_format, counts_tables=counts_tables)
    if least > config.max_bytes:
        raise CheckpointError(
            f"mixed_precision: max_bytes is {config.max_bytes:,}, and the weights take "
            f"{least:,} if no layer gets more bits; raise it, or choose a scheme of fewer bits"
        )


def list_choosable(model: PreTrainedModel, *, number_format: QuantizedFormat) -> list[str]:
    """The linear layers for which the scheme says nothing of their own."""
    head = model.get_output_embeddings()
    return [
        name
        for name, module in find_replaced(model, described=number_format.describe())
        if isinstance(module, nn.Linear)
        and module is not head
        and number_format.for_layer(name) is number_format
    ]


def count_bytes(
    model: PreTrainedModel, *, number_format: QuantizedFormat, counts_tables: bool = True
) -> int:
    """Of all weights as a checkpoint in the format stores them, perhaps without embeddings."""
    head = model.get_output_embeddings()
    taken = {id(item): FLOAT_BYTES * item.numel() for item in model.parameters()}
    for name, module in find_replaced(model, described=number_format.describe()):
        used = choose_format(name, module, head=head, number_format=number_format)
        counts = counts_tables or not is_table(module, head=head)
        taken[id(module.weight)] = _count_bytes(module.weight, used) if counts else 0
    return sum(taken.values())


def _measure(
    model: PreTrainedModel, name: str, *, number_format: QuantizedFormat, floats: Predictions
) -> Option:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    num_bytes = _count_bytes(layer.weight, number_format)
    cost = measure_alone(model, [(name, layer)], number_format=number_format, floats=floats)
    return Option(num_bytes, cost)


def _count_bytes(weight: Tensor, number_format: QuantizedFormat) -> int:
    rows, columns = weight.shape
    return round(number_format.num_bits(rows=rows, columns=columns) / 8)
