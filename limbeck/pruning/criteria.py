"""Scores of coupled groups: the lowest are cut first."""

import abc
import zlib
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from limbeck.models.config import GroupKind
from limbeck.models.structure import Groups
from limbeck.pruning.calibration import Calibration, CalibrationNeeds, part_views

ANY: frozenset[GroupKind] = frozenset({"channels", "heads", "experts"})


class Criterion(abc.ABC):
    """How much a model would lose without each group; a group of zeros scores zero."""

    needs: ClassVar[CalibrationNeeds] = "weights"
    """What `calibration` holds; anything but weights costs a few passes over the corpus."""
    kinds: ClassVar[frozenset[GroupKind]] = frozenset({"channels", "heads"})
    """What it can score."""

    @abc.abstractmethod
    def score(
        self, parts: Sequence[Float[Tensor, "groups _"]], *, calibration: Calibration
    ) -> Float[Tensor, " groups"]:
        """The score of every group of one layer.

        `parts` are the weights, one tensor per part (gate rows, up rows, down columns, ...).
        """


class L1(Criterion):
    """Sum of absolute weights, over all parts of a group."""

    kinds = ANY

    @override
    def score(
        self, parts: Sequence[Float[Tensor, "groups _"]], *, calibration: Calibration
    ) -> Float[Tensor, " groups"]:
        return torch.stack([part.float().abs().sum(dim=1) for part in parts]).sum(dim=0)


class GroupL2(Criterion):
    """Euclidean norm over all parts of a group: the quantity that the group lasso shrinks."""

    kinds = ANY

    @override
    def score(
        self, parts: Sequence[Float[Tensor, "groups _"]], *, calibration: Calibration
    ) -> Float[Tensor, " groups"]:
        return torch.stack([part.float().square().sum(dim=1) for part in parts]).sum(dim=0).sqrt()


class NormProduct(Criterion):
    """Product of the parts' norms: unchanged when a factor moves from one part to another."""

    @override
    def score(
        self, parts: Sequence[Float[Tensor, "groups _"]], *, calibration: Calibration
    ) -> Float[Tensor, " groups"]:
        return torch.stack([part.float().square().sum(dim=1).sqrt() for part in parts]).prod(dim=0)


class Contribution(Criterion):
    """What a group adds to the residual stream: the norm of (its activations times its columns).

    Over the tokens of the calibration batches, in the mean square: sqrt(sum_j E[x_j^2] |w_j|^2).
    Wanda's score (Sun et al. 2023, arXiv:2306.11695) with a whole column in place of one weight.
    """

    needs: ClassVar[CalibrationNeeds] = "activations"

    @override
    def score(
        self, parts: Sequence[Float[Tensor, "groups _"]], *, calibration: Calibration
    ) -> Float[Tensor, " groups"]:
        squares = calibration.mean_square
        assert squares is not None
        num_groups, width = squares.shape
        columns = parts[-1].float().view(num_groups, -1, width).square().sum(dim=1)
        return (columns * squares).sum(dim=1).sqrt()


class MeanAbs(Criterion):
    """Mean magnitude of a group's activations (Minitron: Muralidharan et al., arXiv:2407.14679)."""

    needs: ClassVar[CalibrationNeeds] = "activations"

    @override
    def score(
        self, parts: Sequence[Float[Tensor, "groups _"]], *, calibration: Calibration
    ) -> Float[Tensor, " groups"]:
        assert calibration.mean_abs is not None
        return calibration.mean_abs.mean(dim=1)


class Taylor(Criterion):
    """How much the loss would change without a group, to first order, at a typical token.

    The root mean square over tokens of sum_j x_j dL/dx_j, x being the group's activations and L the
    summed next-token loss of the calibration batches (Molchanov et al. 2019, sec. 3.1, a gate on
    each group, arXiv:1906.10771). Squared before it is summed: over all tokens of a trained model
    positive and negative changes cancel.
    """

    needs: ClassVar[CalibrationNeeds] = "loss_changes"

    @override
    def score(
        self, parts: Sequence[Float[Tensor, "groups _"]], *, calibration: Calibration
    ) -> Float[Tensor, " groups"]:
        assert calibration.loss_change_square is not None
        return calibration.loss_change_square.sqrt()


class Reap(Criterion):
    """For experts: router weight times norm of the expert's output, in the mean over its tokens.

    g_j(x) |f_j(x)| over the tokens x that are routed to expert j (REAP: Lasby et al. 2025, eq. 9,
    arXiv:2510.13999); zero for an expert that none is routed to.
    """

    needs: ClassVar[CalibrationNeeds] = "routing"
    kinds = frozenset({"experts"})

    @override
    def score(
        self, parts: Sequence[Float[Tensor, "groups _"]], *, calibration: Calibration
    ) -> Float[Tensor, " groups"]:
        assert calibration.routed_norm is not None
        return calibration.routed_norm


class RandomScores(Criterion):
    """A control: numbers drawn at random, the same each time for the same weights and seed."""

    kinds = ANY

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    @override
    def score(
        self, parts: Sequence[Float[Tensor, "groups _"]], *, calibration: Calibration
    ) -> Float[Tensor, " groups"]:
        # The weights tell the layers apart, which would else all keep the same groups.
        first = parts[0].detach().float().cpu().contiguous().numpy()
        generator = torch.Generator().manual_seed(zlib.crc32(first.tobytes(), self.seed))
        drawn = 1 - torch.rand(len(first), generator=generator)
        return drawn.to(parts[0].device) * GroupL2().score(parts, calibration=calibration).sign()


@torch.no_grad()
def score_groups(
    model: nn.Module, *, groups: Groups, criterion: Criterion, calibration: Calibration
) -> Float[Tensor, " groups"]:
    """The score of every group of one layer."""
    weights = part_views(groups, dict(model.named_parameters()))
    return criterion.score(weights, calibration=calibration)
