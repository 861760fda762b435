"""Wanda's score for whole groups: the pruning criterion of docs/extend/criterion.md."""

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from limbeck.pruning.calibration import Calibration, CalibrationNeeds
from limbeck.pruning.criteria import Criterion


class Wanda(Criterion):
    """Sum over a group's columns of |weight| times the norm of the activation that it multiplies.

    Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models",
    arXiv:2306.11695; the root mean square stands for the norm, which ranks groups alike.
    """

    needs: ClassVar[CalibrationNeeds] = "activations"

    @override
    def score(
        self, parts: Sequence[Float[Tensor, "groups _"]], *, calibration: Calibration
    ) -> Float[Tensor, " groups"]:
        assert calibration.mean_square is not None
        norms = calibration.mean_square.sqrt()
        columns = parts[-1].float().abs().unflatten(1, (-1, norms.shape[1]))
        return (columns.sum(dim=1) * norms).sum(dim=1)
