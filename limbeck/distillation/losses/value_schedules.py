"""Numbers that move over training, for fields that take a number or a schedule."""

import math
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from limbeck.contracts.config import Config
from limbeck.contracts.fields import PositiveRatio


class Schedule(Config):
    """From one value to another over the first part of training, constant after it."""

    model_config = ConfigDict(populate_by_name=True)

    start: Annotated[float, Field(alias="from")]
    """At the first step; written `from` in a recipe."""
    to: float
    """At the end of the move."""
    shape: Literal["linear", "cosine"] = "linear"
    """Straight, or half a cosine: slow at both ends."""
    over: PositiveRatio = 1.0
    """Share of training that the move takes."""


def value_at(setting: float | Schedule, *, progress: float) -> float:
    """A field's value when `progress` of the training, 0 to 1, is done."""
    if not isinstance(setting, Schedule):
        return setting
    share = min(1.0, progress / setting.over)
    if setting.shape == "cosine":
        share = 0.5 * (1 - math.cos(math.pi * share))
    return setting.start + share * (setting.to - setting.start)


def bounds(setting: float | Schedule) -> tuple[float, float]:
    """The lowest and the highest value that a field takes."""
    if not isinstance(setting, Schedule):
        return setting, setting
    return min(setting.start, setting.to), max(setting.start, setting.to)
