"""What a model does with a few batches of the corpus, group by group: for criteria that ask for it.

A group's activation is what the columns that it owns multiply: the product of gate and up for a
feed-forward channel, the attended values for a head.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from limbeck.models.batch import Batch
from limbeck.models.forward import KeptForward
from limbeck.models.structure import Groups, view_groups

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


class _Moments:
    """Sums of magnitudes and of squares of one linear layer's inputs."""

    def __init__(self) -> None:
        self.count = 0
        self.absolute: Tensor | float = 0.0
        self.squared: Tensor | float = 0.0
        self.tokens: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert self.tokens is not None
        x = inputs[0][self.tokens].float()
        self.count += len(x)
        self.absolute = self.absolute + x.abs().sum(dim=0)
        self.squared = self.squared + x.square().sum(dim=0)


@torch.no_grad()
def _collect_activations(
    model: PreTrainedModel, *, layers: Sequence[Groups], batches: Iterable[Batch]
) -> dict[Groups, Calibration]:
    moments = {groups: _Moments() for groups in layers}
    handles = []
    for groups, found in moments.items():
        (column,) = (part for part in groups.parts if part.axis == 1)
        module = model.get_submodule(column.parameter.removesuffix(".weight"))
        handles.append(module.register_forward_pre_hook(found))
    try:
        for batch in batches:
            batch = batch.to(model.device)
            for found in moments.values():
                found.tokens = batch.tokens
            KeptForward(model)(batch)
    finally:
        for handle in handles:
            handle.remove()
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
