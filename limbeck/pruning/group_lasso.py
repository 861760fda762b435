"""The proximal group lasso: after each optimizer step, groups shrink, and some become exactly zero.

For a group of p weights, the step that minimises |w - v|^2 / 2 + lr lambda sqrt(p) |w| is

    w = v max(0, 1 - lr lambda sqrt(p) / |v|)

(Yuan and Lin 2006, J. R. Stat. Soc. B 68; Parikh and Boyd 2014, sec. 6.5.1). In terms of the
group's root mean square, |v| / sqrt(p), it subtracts lr lambda and stops at zero.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from limbeck.models.structure import Groups, view_groups
from limbeck.pruning.config import GroupLasso


def soft_threshold(
    rms: Float[Tensor, " groups"], *, thresholds: Float[Tensor, " groups"]
) -> Float[Tensor, " groups"]:
    """Factors max(0, 1 - threshold / rms), exactly zero where rms is not above the threshold."""
    above = rms > thresholds
    return torch.where(above, 1 - thresholds / torch.where(above, rms, 1.0), 0.0)


def measure_rms(model: nn.Module, *, groups: Groups) -> Float[Tensor, " groups"]:
    """Norm of each group divided by the root of its number of weights."""
    views = _views(model, groups)
    squares = torch.stack([view.float().square().flatten(1).sum(dim=1) for view in views])
    return (squares.sum(dim=0) / sum(view[0].numel() for view in views)).sqrt()


@torch.no_grad()
def shrink(
    model: nn.Module, *, groups: Groups, num_zero: int, fraction: float, concavity: float
) -> float:
    """One proximal step on a layer, in place; gives back lr lambda.

    lr lambda is `fraction` of the distance by which the `num_zero` smallest groups miss zero, so
    a fraction of 1 makes exactly these zero.
    """
    if num_zero == 0:
        return 0.0
    rms = measure_rms(model, groups=groups)
    largest = rms.kthvalue(num_zero).values
    pressure = (largest / rms.clamp(min=torch.finfo(rms.dtype).tiny)) ** concavity
    factors = soft_threshold(rms, thresholds=largest * fraction * pressure)
    for view in _views(model, groups):
        view.mul_(factors.view(-1, *[1] * (view.ndim - 1)).to(view.dtype))
    return float(largest) * fraction


def count_zero(model: nn.Module, *, groups: Groups) -> int:
    """Groups of a layer whose every weight is exactly zero."""
    return int((measure_rms(model, groups=groups) == 0).sum())


def _views(model: nn.Module, groups: Groups) -> list[Tensor]:
    return [
        view_groups(model.get_parameter(part.parameter), part=part, num_groups=groups.num_groups)
        for part in groups.parts
    ]


class Regulariser:
    """Presses on the groups of a model so that the target numbers are zero in time.

    At every step lambda is chosen, per layer, so that the groups that are smallest now would be
    zero at the step `reach` if the objective did not resist; the more it resists, the more
    lambda grows. All of it follows from the weights and the step: a resumed run needs no state.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        num_zero: Mapping[Groups, int],
        lrs: Sequence[float],
        config: GroupLasso,
    ) -> None:
        self.model = model
        self.num_zero = dict(num_zero)
        self.lrs = list(lrs)
        self.reach = max(0, round(config.reach_ratio * len(self.lrs)) - 1)
        self.concavity = config.concavity

    def fraction(self, step: int) -> float:
        """Share of the learning rates from here to `reach` that this step has; 1 from there on."""
        if step >= self.reach:
            return 1.0
        return self.lrs[step] / sum(self.lrs[step : self.reach + 1])

    def __call__(self, step: int) -> None:
        """One proximal step on every layer; to be called after each optimizer step."""
        fraction = self.fraction(step)
        for groups, num_zero in self.num_zero.items():
            shrink(
                self.model,
                groups=groups,
                num_zero=num_zero,
                fraction=fraction,
                concavity=self.concavity,
            )
