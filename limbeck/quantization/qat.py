"""Quantisation-aware training: preparing a float model, rounding it gradually, converting it.

Nothing is observed or calibrated: weight scales follow the weights at every step.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from torch import nn
from transformers import PreTrainedModel

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonMapping
from limbeck.quantization.formats.base import QuantizedFormat, is_named
from limbeck.quantization.formats.tensors import QuantizedTensor
from limbeck.quantization.layers import (
    FakeQuantizedEmbedding,
    FakeQuantizedLinear,
    QuantizedEmbedding,
    QuantizedLinear,
    embedding_factor,
    is_plain_linear,
)


def prepare_for_qat(model: PreTrainedModel, *, number_format: QuantizedFormat) -> None:
    """Make a float model round as its stored form will; its parameters and names stay.

    Raises:
        CheckpointError: the model is quantised already, has no layers whose codes would count, or
            none that a pattern of the format's `layers` means.
    """
    _refuse_quantized(model)
    head = model.get_output_embeddings()
    replaced = list(find_replaced(model, described=number_format.describe()))
    linears = [
        name for name, module in replaced if isinstance(module, nn.Linear) and module is not head
    ]
    for pattern in number_format.layers:
        if not any(is_named(name, pattern) for name in linears):
            raise CheckpointError(
                f"layers: {pattern!r} means no linear layer of {type(model).__name__}; its layers "
                f"are called {', '.join(linears[:8])}, ..."
            )
    if not linears:
        raise CheckpointError(
            f"{type(model).__name__}: has no linear layers but its head (others as GPT-2's Conv1D "
            "are not stored as codes), so most of it would stay in floating point"
        )
    prepare_modules(model, replaced, number_format=number_format)


def prepare_modules(
    model: PreTrainedModel,
    modules: Iterable[tuple[str, nn.Linear | nn.Embedding]],
    *,
    number_format: QuantizedFormat,
) -> None:
    """Make some modules of a float model, given by name, round as their stored form will."""
    head = model.get_output_embeddings()
    for name, module in modules:
        chosen = choose_format(name, module, head=head, number_format=number_format)
        if isinstance(module, nn.Embedding):
            fake = FakeQuantizedEmbedding(module, number_format=chosen)
        else:
            fake = FakeQuantizedLinear(module, number_format=chosen)
        model.set_submodule(name, fake)


def choose_format(
    name: str, module: nn.Module, *, head: nn.Module | None, number_format: QuantizedFormat
) -> QuantizedFormat:
    """Embeddings and language head may have a format of their own, and so may other layers."""
    table = is_table(module, head=head)
    return number_format.table if table else number_format.for_layer(name)


def is_table(module: nn.Module, *, head: nn.Module | None) -> bool:
    """Whether a module has the format of embeddings and language head."""
    return isinstance(module, nn.Embedding) or module is head


def find_rounded_ratio(progress: float, *, annealing_ratio: float) -> float:
    """The share of rounding after so much of the training, both from 0 to 1: it grows linearly.

    lambda = min(progress / annealing_ratio, 1), as in the warm-up of Mekkouri et al. 2024
    (huggingface.co/blog/1_58_llm_extreme_quantization), where it ends at half of the training.
    """
    return min(progress / annealing_ratio, 1.0) if annealing_ratio else 1.0


def convert(model: PreTrainedModel, *, number_format: QuantizedFormat) -> PreTrainedModel:
    """The same model, changed in place to codes; prepared for training or not.

    Raises:
        CheckpointError: the model is quantised already.
    """
    _refuse_quantized(model)
    restore_float(model)
    described = number_format.describe()
    quantize_in_place(model, number_format=number_format, described=described)
    model.config.quantization_config = number_format.describe_whole()
    return model.eval()


def restore_float(model: nn.Module) -> None:
    """Undo the preparation: plain layers again, holding the trained parameters."""
    for name, module in list(model.named_modules()):
        if isinstance(module, FakeQuantizedEmbedding):
            (original,) = module.original
            original.weight = module.weight
            model.set_submodule(name, original)
        elif isinstance(module, FakeQuantizedLinear):
            linear = nn.Linear(module.in_features, module.out_features, False, device="meta")
            linear.weight = module.weight
            linear.bias = module.bias
            model.set_submodule(name, linear)


def quantize_in_place(
    model: PreTrainedModel, *, number_format: QuantizedFormat, described: JsonMapping
) -> None:
    """Replace the modules that `described` names by stored ones; tied weights stay one tensor."""
    done: dict[int, QuantizedTensor] = {}
    head = model.get_output_embeddings()
    for name, module in list(find_replaced(model, described=described)):
        chosen = choose_format(name, module, head=head, number_format=number_format)
        weight = module.weight
        if id(weight) not in done:
            done[id(weight)] = chosen.quantize(weight.detach())
        stored = done[id(weight)]
        if isinstance(module, nn.Embedding):
            factor = embedding_factor(module)
            replaced = QuantizedEmbedding(stored, number_format=chosen, factor=factor)
        else:
            bias = None if module.bias is None else module.bias.detach().float()
            replaced = QuantizedLinear(stored, number_format=chosen, bias=bias)
        model.set_submodule(name, replaced)


def count_layers(model: nn.Module) -> dict[str, int]:
    """How many linear layers of a converted model have each format, by its name."""
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    return dict(Counter(layer.number_format.kind for layer in layers))


def find_replaced(
    model: nn.Module, *, described: JsonMapping
) -> Iterator[tuple[str, nn.Linear | nn.Embedding]]:
    """The modules of a float model whose weights become codes, by name, embeddings first.

    Everything else (norms, gates, the stacked experts of a mixture) stays in floating point.
    """
    ignore = described.get("ignore") or ()
    modules = list(model.named_modules())
    if described.get("embeddings", "float32") != "float32":
        yield from ((name, module) for name, module in modules if isinstance(module, nn.Embedding))
    for name, module in modules:
        if not isinstance(module, nn.Linear) or not is_plain_linear(type(module)):
            continue
        if not any(is_named(name, item) for item in ignore):
            yield name, module


def _refuse_quantized(model: PreTrainedModel) -> None:
    described = model.config.to_dict().get("quantization_config")
    if described is not None:
        raise CheckpointError(
            f"the model is quantised already ({described.get('quant_method')}): its codes cannot "
            "be trained; name the floating-point checkpoint it was made from"
        )
