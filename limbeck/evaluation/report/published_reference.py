"""The results of the reference description, printed beside every measured table.

They are another model's on other data: a shape to compare ratios with, not measurements of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedResult:
    """One row of the reference table."""

    accuracy: float
    kept_ratio: float
    latency_seconds: float
    speedup_ratio: float
    memory_bytes: int
    memory_ratio: float


REFERENCE: Mapping[str, PublishedResult] = {
    "full": PublishedResult(
        accuracy=0.913,
        kept_ratio=1.0,
        latency_seconds=1.2,
        speedup_ratio=1.0,
        memory_bytes=8_700_000_000,
        memory_ratio=1.0,
    ),
    "distilled": PublishedResult(
        accuracy=0.897,
        kept_ratio=0.982,
        latency_seconds=0.45,
        speedup_ratio=2.7,
        memory_bytes=2_300_000_000,
        memory_ratio=3.8,
    ),
    "quantised": PublishedResult(
        accuracy=0.882,
        kept_ratio=0.966,
        latency_seconds=0.28,
        speedup_ratio=4.3,
        memory_bytes=480_000_000,
        memory_ratio=18.0,
    ),
}
"""Row of the reference table to its figures, as published there (ratios are rounded there)."""
