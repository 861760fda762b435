"""How far a copy of a model may differ from it, and how far it does: on next-token logits.

On numpy alone, because a device that only answers has no torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from limbeck.contracts.config import Config
from limbeck.contracts.errors import ParityError
from limbeck.contracts.fields import NonNegativeFloat

Measure = Literal[
    "max_logit_difference",
    "max_logit_difference / max_logit",
    "mean_kl",
    "copy_rounding_kl / rounding_kl",
]
SMALLEST_LOGIT = 1e-30
"""Keeps the relative difference finite where every logit is zero."""
SMALLEST_ROUNDING_KL = 1e-4
"""In nats. Where rounding activations costs less, no copy is held to the cost."""


class Tolerance(Config):
    """The largest difference at which a copy still counts as the same model."""

    measure: Measure
    """The figure that is limited. `mean_kl` is KL(original || copy) in nats; the ratio of
    `rounding_kl` compares both with the same weights and unrounded activations."""
    limit: NonNegativeFloat
    """The largest value of that figure."""


FLOAT32_STEP = 2.0**-23
DYNAMIC_RANGE = 16.0
"""Residual streams of published models hold a few values far above all others (24,326 in SmolLM2),
beside which the others lose digits: 2.5 times what even values lose was measured there."""


def rounding_tolerance(*, width: int, depth: int) -> Tolerance:
    """How far logits may differ by the order of float32 sums alone.

    A sum of `width` terms rounds by about sqrt(width) steps (Higham, Accuracy and Stability of
    Numerical Algorithms, 2nd ed., sec. 2.8); each of `depth` layers adds two such sums, in the
    worst case all in one direction; `DYNAMIC_RANGE` times that is allowed. A fault of a graph or of
    a cut is orders of magnitude above.
    """
    limit = FLOAT32_STEP * width**0.5 * (2 * depth + 1) * DYNAMIC_RANGE
    return Tolerance(measure="max_logit_difference / max_logit", limit=limit)


@dataclass(frozen=True)
class LogitDifference:
    """Differences of next-token logits, gathered over positions."""

    num_positions: int = 0
    max_logit_difference: float = 0.0
    mean_logit_difference: float = 0.0
    max_logit: float = 0.0
    """Largest magnitude of a logit of the original."""
    argmax_agreement_ratio: float = 0.0
    mean_kl: float = 0.0
    rounding_kl: float = 0.0
    """KL(unrounded || original): what the original loses by rounding activations."""
    copy_rounding_kl: float = 0.0
    """KL(unrounded || copy), with the original's unrounded activations."""

    def figure(self, measure: Measure) -> float:
        """The value of one measure."""
        if measure == "mean_kl":
            return self.mean_kl
        if measure == "max_logit_difference":
            return self.max_logit_difference
        if measure == "copy_rounding_kl / rounding_kl":
            return self.copy_rounding_kl / max(self.rounding_kl, SMALLEST_ROUNDING_KL)
        return self.max_logit_difference / max(self.max_logit, SMALLEST_LOGIT)

    def with_rounding(
        self, *, original: "LogitDifference", copy: "LogitDifference"
    ) -> "LogitDifference":
        """The same, with both models' differences from one that rounds no activations."""
        return replace(self, rounding_kl=original.mean_kl, copy_rounding_kl=copy.mean_kl)

    def check(self, tolerance: Tolerance, *, fault: str, advice: str) -> None:
        """Accept the difference.

        Raises:
            ParityError: it exceeds the tolerance, or is not a number.
        """
        figure = self.figure(tolerance.measure)
        # Not `figure > limit`: that would let a NaN pass.
        if not figure <= tolerance.limit:
            raise ParityError(
                f"{fault}: {tolerance.measure} is {figure:.3g}, expected at most "
                f"{tolerance.limit:.3g}; arg-max agrees at {self.argmax_agreement_ratio:.4f} of "
                f"{self.num_positions} positions. {advice}"
            )


def log_softmax(logits: Float[np.ndarray, "*batch vocab"]) -> Float[np.ndarray, "*batch vocab"]:
    """Log-probabilities."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def compare_logits(
    pairs: Iterable[
        tuple[Float[np.ndarray, "*positions vocab"], Float[np.ndarray, "*positions vocab"]]
    ],
) -> LogitDifference:
    """The difference over all pairs of an original's logits and its copy's."""
    num_positions = 0
    max_difference = max_logit = mean_difference = agreement = total_kl = 0.0
    for expected, found in pairs:
        difference = np.abs(expected - found)
        logs = log_softmax(expected)
        kl = (np.exp(logs) * (logs - log_softmax(found))).sum(axis=-1)
        num_positions += kl.size
        # Not the maximum of two Python floats: a NaN must stay visible.
        max_difference = float(np.max([max_difference, difference.max()]))
        max_logit = float(np.max([max_logit, np.abs(expected).max()]))
        mean_difference += float(difference.mean(axis=-1).sum())
        agreement += float((expected.argmax(-1) == found.argmax(-1)).sum())
        total_kl += float(np.maximum(kl, 0.0).sum())
    count = max(num_positions, 1)
    return LogitDifference(
        num_positions=num_positions,
        max_logit_difference=max_difference,
        mean_logit_difference=mean_difference / count,
        max_logit=max_logit,
        argmax_agreement_ratio=agreement / count,
        mean_kl=total_kl / count,
    )
