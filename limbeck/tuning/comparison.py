"""Two settings compared over the same questions and seeds, as pure functions of arrays.

Left out: which trials are compared, and what follows from it (`verdict`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.05
"""Two-sided; the intervals are of 95 %."""


@dataclass(frozen=True)
class Difference:
    """A mean difference per question or token, with its 95 % interval."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided: how likely a difference as large is where there is none."""


@dataclass(frozen=True)
class RankCorrelation:
    """How alike two measures order the same trials."""

    spearman: float
    low: float
    high: float
    """The 95 % interval of Spearman's (Bonett and Wright 2000, Psychometrika 65)."""
    kendall: float
    num_trials: int


def paired_difference(
    *,
    scores: Float[np.ndarray, "seeds questions"],
    reference: Float[np.ndarray, "seeds questions"],
    sizes: Float[np.ndarray, " questions"],
    groups: Sequence[str],
) -> Difference:
    """The sum of `scores - reference` over that of `sizes`, with seeds and groups as chance.

    Seeds and question groups are crossed random effects, as readers and cases are: the variance is
    that between seeds plus that between groups, less what both count, with the degrees of freedom
    of Hillis (2007, https://doi.org/10.1002/sim.2532). One seed says nothing about seeds: the
    interval is then that of the questions alone. Fewer than six groups never reach 5 %: `p` is at
    least that of a sign test in which all groups agree.
    """
    num_seeds = len(scores)
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    num_groups = int(inverse.max()) + 1
    weights = np.bincount(inverse, weights=sizes)
    gains = np.stack([np.bincount(inverse, weights=row) for row in scores - reference])
    total = num_seeds * weights.sum()
    value = float(gains.sum() / total)
    rest = gains - value * weights
    of_groups = _variance(rest.sum(axis=0)) / total**2
    if num_seeds == 1:
        variance, freedom = of_groups, float(num_groups - 1)
    else:
        of_seeds = _variance(rest.sum(axis=1)) / total**2
        of_seed = np.outer(rest.sum(axis=1), weights / weights.sum())
        each = rest - rest.mean(axis=0) - of_seed
        shrink = (num_groups - 1) * (num_seeds - 1) / each.size
        of_both = float(np.square(each).sum()) / shrink / total**2 if num_groups > 1 else 0.0
        variance = of_seeds + max(0.0, of_groups - of_both)
        freedom = float(num_groups - 1)
        if of_seeds:
            freedom = min(freedom, (num_seeds - 1) * (variance / of_seeds) ** 2)
    return _infer(value, variance=variance, freedom=max(1.0, freedom), num_groups=num_groups)


def _infer(value: float, *, variance: float, freedom: float, num_groups: int) -> Difference:
    spread = float(np.sqrt(variance))
    half = float(stats.t.ppf(1 - LEVEL / 2, freedom)) * spread
    if spread:
        p = float(2 * stats.t.sf(abs(value) / spread, freedom))
    else:
        p = 1.0 if value == 0 else 0.0
    return Difference(value, value - half, value + half, min(1.0, max(p, 2.0 ** (1 - num_groups))))


def _variance(rest: Float[np.ndarray, " parts"]) -> float:
    """Of a sum of independent parts with mean zero."""
    count = len(rest)
    return float(np.square(rest).sum()) * count / (count - 1) if count > 1 else 0.0


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """The p-values for all comparisons together (Holm 1979, Scand. J. Statist. 6, 65-70)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    found, highest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        found[index] = highest
    return found


def correlate_ranks(
    early: Sequence[float], *, final: Sequence[float], fewest: int
) -> RankCorrelation | None:
    """Spearman's and Kendall's rank correlation; None for too few trials, or all of one value."""
    count = len(early)
    if count < max(4, fewest) or len(set(early)) < 2 or len(set(final)) < 2:
        return None
    spearman = float(stats.spearmanr(early, final).statistic)  # pyright: ignore[reportAttributeAccessIssue]
    kendall = float(stats.kendalltau(early, final).statistic)  # pyright: ignore[reportAttributeAccessIssue]
    half = float(stats.norm.ppf(1 - LEVEL / 2)) * np.sqrt((1 + spearman**2 / 2) / (count - 3))
    middle = np.arctanh(np.clip(spearman, -1 + 1e-9, 1 - 1e-9))
    low, high = np.tanh([middle - half, middle + half])
    return RankCorrelation(spearman, float(low), float(high), kendall, count)
