"""What a model does with a few batches of the corpus, group by group: for criteria that ask for it.

A group's activation is what the columns that it owns multiply: the product of gate and up for a
feed-forward channel, the attended values for a head.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from typing_extensions import override

from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.models.structure import Groups, view_groups
from limbeck.pruning.observation import Observer, observe

Needs = Literal["weights", "activations", "gradients"]
"""What a criterion reads besides the weights, which all do."""


@dataclass(frozen=True)
class Calibration:
    """The statistics of one layer's groups; empty where the criterion needs weights only."""

    mean_abs: Float[Tensor, "groups width"] | None = None
    """Mean magnitude of each group's activations over tokens, padding left out."""
    mean_square: Float[Tensor, "groups width"] | None = None
    gradients: Sequence[Float[Tensor, "groups _"]] = ()
    """Of the summed next-token loss, one tensor per part in the order of the weights."""


def part_views(groups: Groups, tensors: dict[str, Tensor]) -> list[Float[Tensor, "groups _"]]:
    """The groups' share of each weight matrix, the group as the first axis; biases left out."""
    return [
        view_groups(tensors[part.parameter], part=part, num_groups=groups.num_groups).flatten(1)
        for part in groups.parts
        if not part.parameter.endswith(".bias")
    ]


def calibrate(
    model: PreTrainedModel, *, layers: Sequence[Groups], batches: Iterable[Batch], needs: Needs
) -> dict[Groups, Calibration]:
    """What the batches show about the groups of every layer."""
    if needs == "weights":
        return dict.fromkeys(layers, Calibration())
    training = model.training
    model.eval()
    if needs == "activations":
        found = _collect_activations(model, layers=layers, batches=batches)
    else:
        found = _collect_gradients(model, layers=layers, batches=batches)
    model.train(training)
    return found


class _Moments(Observer):
    """Sums of magnitudes and of squares of one linear layer's inputs."""

    def __init__(self) -> None:
        self.count = 0
        self.absolute: Tensor | float = 0.0
        self.squared: Tensor | float = 0.0

    @override
    def add(self, given: Float[Tensor, "tokens _"], made: Float[Tensor, "tokens _"]) -> None:
        self.count += len(given)
        self.absolute = self.absolute + given.abs().sum(dim=0)
        self.squared = self.squared + given.square().sum(dim=0)


def _collect_activations(
    model: PreTrainedModel, *, layers: Sequence[Groups], batches: Iterable[Batch]
) -> dict[Groups, Calibration]:
    moments = {groups: _Moments() for groups in layers}
    observers = {}
    for groups, found in moments.items():
        (column,) = (part for part in groups.parts if part.axis == 1)
        observers[column.parameter.removesuffix(".weight")] = found
    observe(model, observers=observers, batches=batches)
    return {
        groups: Calibration(
            mean_abs=torch.as_tensor(found.absolute / found.count).view(groups.num_groups, -1),
            mean_square=torch.as_tensor(found.squared / found.count).view(groups.num_groups, -1),
        )
        for groups, found in moments.items()
    }


def _collect_gradients(
    model: PreTrainedModel, *, layers: Sequence[Groups], batches: Iterable[Batch]
) -> dict[Groups, Calibration]:
    parameters = dict(model.named_parameters())
    names = sorted({part.parameter for groups in layers for part in groups.parts})
    wanted = [parameters[name] for name in names]
    sums = {name: torch.zeros_like(parameters[name]) for name in names}
    for batch in batches:
        batch = batch.to(model.device)
        logits = KeptForward(model)(batch).logits
        loss = functional.cross_entropy(logits.float(), batch.targets, reduction="sum")
        for name, gradient in zip(names, torch.autograd.grad(loss, wanted), strict=True):
            sums[name] += gradient
    return {groups: Calibration(gradients=part_views(groups, sums)) for groups in layers}
