"""What a number format costs a model, by block and by linear layer."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from typing_extensions import override

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonObject
from limbeck.models.batch import Batch
from limbeck.models.observation import Observer, observe
from limbeck.models.structure import find_layers
from limbeck.quantization.formats.base import QuantizedFormat
from limbeck.quantization.layers import FakeQuantizedLinear
from limbeck.quantization.qat import (
    find_replaced,
    prepare_for_qat,
    prepare_modules,
    restore_float,
)

NUM_NAMED = 3
"""Blocks and layers that the metrics name."""


@dataclass(frozen=True)
class BlockCost:
    """A block of a model, all others of floats."""

    name: str
    kl: float
    """KL(floats || the block rounded), in nats a position."""


@dataclass(frozen=True)
class LayerCost:
    """A linear layer of a model that is rounded everywhere."""

    name: str
    error_ratio: float
    """Squares of what rounding it changes in its outputs, over the squares of these."""
    weight_peak_ratio: float
    """Largest magnitude over the root mean square. A block's step is set by its largest number."""
    input_peak_ratio: float
    """The same of what it reads."""


@dataclass(frozen=True)
class RoundingCosts:
    """Blocks and linear layers, the costly ones first."""

    blocks: Sequence[BlockCost]
    layers: Sequence[LayerCost]

    def describe(self) -> JsonObject:
        """For a file: all of them."""
        return {
            "blocks": [asdict(item) for item in self.blocks],
            "layers": [asdict(item) for item in self.layers],
        }

    def metrics(self) -> JsonObject:
        """The costly ones by name."""
        return {
            "costly_blocks": {item.name: item.kl for item in self.blocks[:NUM_NAMED]},
            "costly_layers": {item.name: item.error_ratio for item in self.layers[:NUM_NAMED]},
        }


@final
class _Rounded(Observer):
    """Sums over what a prepared layer reads and makes."""

    def __init__(self, layer: FakeQuantizedLinear) -> None:
        self._layer = layer
        self._error = self._made = self._given = self._peak = 0.0
        self._count = 0

    @override
    def add(self, given: Float[Tensor, "tokens _"], made: Float[Tensor, "tokens _"]) -> None:
        floats = functional.linear(given, self._layer.weight, self._layer.bias)
        self._error += float((made - floats).square().sum())
        self._made += float(floats.square().sum())
        self._given += float(given.square().sum())
        self._peak = max(self._peak, float(given.abs().amax())) if len(given) else self._peak
        self._count += given.numel()

    def cost(self, name: str) -> LayerCost | None:
        """None of a layer that no token reached, or that makes zeros."""
        if not (self._made and self._given):
            return None
        weight = self._layer.weight.detach().float()
        return LayerCost(
            name,
            error_ratio=self._error / self._made,
            weight_peak_ratio=float(weight.abs().amax() / weight.square().mean().sqrt()),
            input_peak_ratio=self._peak / (self._given / self._count) ** 0.5,
        )


def measure_costs(
    model: PreTrainedModel,
    *,
    number_format: QuantizedFormat,
    batches: Iterable[Batch],
    input_ids: Int[Tensor, "prompts tokens"],
) -> RoundingCosts:
    """Of a model of floats, what rounding it to the nearest codes would cost and where."""
    blocks = measure_blocks(model, number_format=number_format, input_ids=input_ids)
    prepare_for_qat(model, number_format=number_format)
    layers = measure_layers(model, batches=batches)
    restore_float(model)
    return RoundingCosts(blocks, layers)


@torch.no_grad()
def measure_layers(model: PreTrainedModel, *, batches: Iterable[Batch]) -> list[LayerCost]:
    """Of a model prepared for rounding, the linear layers that tokens reach, the costly first."""
    observers = {
        name: _Rounded(module)
        for name, module in model.named_modules()
        if isinstance(module, FakeQuantizedLinear)
    }
    observe(model, observers=observers, batches=batches)
    found = [item for name, seen in observers.items() if (item := seen.cost(name)) is not None]
    return sorted(found, key=lambda item: -item.error_ratio)


def measure_blocks(
    model: PreTrainedModel,
    *,
    number_format: QuantizedFormat,
    input_ids: Int[Tensor, "prompts tokens"],
) -> list[BlockCost]:
    """Of a model of floats, its blocks, embeddings and head, each rounded alone; costly first."""
    floats = predict(model, input_ids=input_ids)
    groups = _group(model, number_format=number_format)
    found = [
        BlockCost(name, measure_alone(model, modules, number_format=number_format, floats=floats))
        for name, modules in groups.items()
    ]
    return sorted(found, key=lambda item: -item.kl)


@dataclass(frozen=True)
class Predictions:
    """What a model of floats says, with which it is compared when a part of it is rounded."""

    input_ids: Int[Tensor, "prompts tokens"]
    log_probs: Float[Tensor, "positions vocab"]


@torch.no_grad()
def predict(model: PreTrainedModel, *, input_ids: Int[Tensor, "prompts tokens"]) -> Predictions:
    """Log-probabilities at every position."""
    logits = model(input_ids=input_ids, use_cache=False).logits
    return Predictions(input_ids, logits.flatten(0, 1).float().log_softmax(dim=-1))


def measure_alone(
    model: PreTrainedModel,
    modules: Iterable[tuple[str, nn.Linear | nn.Embedding]],
    *,
    number_format: QuantizedFormat,
    floats: Predictions,
) -> float:
    """KL(floats || these modules rounded and no others), in nats a position."""
    prepare_modules(model, modules, number_format=number_format)
    rounded = predict(model, input_ids=floats.input_ids).log_probs
    restore_float(model)
    kl = functional.kl_div(rounded, floats.log_probs, log_target=True, reduction="none")
    return float(kl.sum(dim=-1).clamp_min(0).mean())


def _group(
    model: PreTrainedModel, *, number_format: QuantizedFormat
) -> dict[str, list[tuple[str, nn.Linear | nn.Embedding]]]:
    """The modules that become codes, by the block of the decoder that they are in, or by name."""
    try:
        prefix, layers = find_layers(model)
    except CheckpointError:  # then every layer stands for itself
        prefix, layers = "", ()
    blocks = [f"{prefix}.{index}" for index in range(len(layers))]
    found: dict[str, list[tuple[str, nn.Linear | nn.Embedding]]] = {}
    for name, module in find_replaced(model, described=number_format.describe()):
        block = next((item for item in blocks if name.startswith(f"{item}.")), name)
        found.setdefault(block, []).append((name, module))
    return found
