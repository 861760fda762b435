"""What every way to store targets offers, and gaps between logits in a few bits each."""

import numpy as np
from jaxtyping import Float, Int


def quantise(
    gaps: Float[np.ndarray, "kept tokens"], *, bits: int
) -> tuple[Int[np.ndarray, "kept tokens"], Float[np.ndarray, " kept"]]:
    """Gaps, none below 0, as steps of each position's own widest gap, and that gap."""
    widest = gaps.max(axis=1, initial=0.0).astype(np.float16)
    # Float16 may round down; the next larger number holds every gap.
    short = widest < gaps.max(axis=1, initial=0.0)
    widest = np.where(short, np.nextafter(widest, np.float16(np.inf)), widest)
    most = (1 << bits) - 1
    unit = np.maximum(widest.astype(np.float32), 1e-30)[:, None]
    return np.rint(gaps / unit * most).clip(0, most).astype(np.int64), widest


def restore(
    steps: Int[np.ndarray, "kept tokens"], widest: Float[np.ndarray, " kept"], *, bits: int
) -> Float[np.ndarray, "kept tokens"]:
    """Gaps of their steps."""
    unit = widest.astype(np.float32) / ((1 << bits) - 1)
    return steps.astype(np.float32) * unit[:, None]
