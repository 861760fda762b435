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
from limbeck.models.observation import Observer, hooked, observe
from limbeck.models.structure import Groups, view_groups
from limbeck.pruning.experts import measure_routed_norms

CalibrationNeeds = Literal["weights", "activations", "loss_changes", "gradients", "routing"]
"""What a criterion reads besides the weights, which all do."""


@dataclass(frozen=True)
class Calibration:
    """The statistics of one layer's groups; empty where the criterion needs weights only."""

    mean_abs: Float[Tensor, "groups width"] | None = None
    """Mean magnitude of each group's activations over tokens, padding left out."""
    mean_square: Float[Tensor, "groups width"] | None = None
    loss_change_square: Float[Tensor, " groups"] | None = None
    """Mean square over tokens of a group's activations times the gradient of the summed next-token
    loss by them: to first order, how the loss would change without the group at that token."""
    routed_norm: Float[Tensor, " groups"] | None = None
    """Of experts: router weight times norm of the output, in the mean over each one's tokens."""
    gradients: Sequence[Float[Tensor, "groups _"]] = ()
    """Of the summed next-token loss, one tensor per part in the order of the weights."""


def part_views(groups: Groups, tensors: dict[str, Tensor]) -> list[Float[Tensor, "groups _"]]:
    """Each weight matrix with the group as the first axis; biases and buffers left out."""
    return [
        view_groups(tensors[part.parameter], part=part, num_groups=groups.num_groups).flatten(1)
        for part in groups.parts
        if part.parameter in tensors and not part.parameter.endswith(".bias")
    ]


def calibrate(
    model: PreTrainedModel,
    *,
    layers: Sequence[Groups],
    batches: Iterable[Batch],
    needs: CalibrationNeeds,
) -> dict[Groups, Calibration]:
    """What the batches show about the groups of every layer."""
    if needs == "weights":
        return dict.fromkeys(layers, Calibration())
    training = model.training
    model.eval()
    if needs == "activations":
        found = _collect_activations(model, layers=layers, batches=batches)
    elif needs == "loss_changes":
        found = _collect_loss_changes(model, layers=layers, batches=batches)
    elif needs == "routing":
        norms = measure_routed_norms(model, layers=layers, batches=batches)
        found = {groups: Calibration(routed_norm=item) for groups, item in norms.items()}
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
    observers = {_find_reader(groups): found for groups, found in moments.items()}
    observe(model, observers=observers, batches=batches)
    return {
        groups: Calibration(
            mean_abs=torch.as_tensor(found.absolute / found.count).view(groups.num_groups, -1),
            mean_square=torch.as_tensor(found.squared / found.count).view(groups.num_groups, -1),
        )
        for groups, found in moments.items()
    }


def _find_reader(groups: Groups) -> str:
    """The linear layer that multiplies the groups' activations."""
    (column,) = (part for part in groups.parts if part.axis == 1)
    return column.parameter.removesuffix(".weight")


def _collect_loss_changes(
    model: PreTrainedModel, *, layers: Sequence[Groups], batches: Iterable[Batch]
) -> dict[Groups, Calibration]:
    sums = {groups: torch.zeros(groups.num_groups, device=model.device) for groups in layers}
    read: dict[str, Tensor] = {}
    readers = {name: model.get_submodule(name) for name in map(_find_reader, layers)}
    count = 0
    with hooked(readers, note=lambda name, given, _: read.update({name: given})):
        for batch in batches:
            batch = batch.to(model.device)
            loss = _sum_loss(model, batch)
            tensors = [read[name] for name in readers]
            gradients = torch.autograd.grad(loss, tensors)
            count += int(batch.tokens.sum())
            for groups, tensor, gradient in zip(layers, tensors, gradients, strict=True):
                change = tensor.detach()[batch.tokens].float() * gradient[batch.tokens].float()
                sums[groups] += change.unflatten(1, (groups.num_groups, -1)).sum(2).square().sum(0)
    return {groups: Calibration(loss_change_square=sums[groups] / count) for groups in layers}


def _sum_loss(model: PreTrainedModel, batch: Batch) -> Float[Tensor, ""]:
    logits = KeptForward(model)(batch).logits
    return functional.cross_entropy(logits.float(), batch.targets, reduction="sum")


def _collect_gradients(
    model: PreTrainedModel, *, layers: Sequence[Groups], batches: Iterable[Batch]
) -> dict[Groups, Calibration]:
    parameters = dict(model.named_parameters())
    names = sorted({part.parameter for groups in layers for part in groups.parts})
    wanted = [parameters[name] for name in names]
    sums = {name: torch.zeros_like(parameters[name]) for name in names}
    for batch in batches:
        loss = _sum_loss(model, batch.to(model.device))
        for name, gradient in zip(names, torch.autograd.grad(loss, wanted), strict=True):
            sums[name] += gradient
    return {groups: Calibration(gradients=part_views(groups, sums)) for groups in layers}
