"""One searched path of an entry: what Optuna samples for it, and what that stands for."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution


@dataclass(frozen=True)
class Dimension:
    """One path of the tuned entry, and the values that it may take."""

    path: str
    distribution: BaseDistribution
    values: tuple[Any, ...] = ()
    """What the labels of a categorical distribution stand for."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The path's parts."""
        return tuple(self.path.split("."))

    def decode(self, sampled: Any) -> Any:
        """The value for the recipe of what Optuna sampled."""
        if isinstance(self.distribution, CategoricalDistribution):
            return copy.deepcopy(self.values[self.distribution.choices.index(sampled)])
        return sampled

    def encode(self, value: Any) -> Any:
        """What Optuna samples for a value; None where it never does."""
        if self.values:
            wanted = label(value)
            return wanted if wanted in map(label, self.values) else None
        low, high = self.ends()
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if isinstance(self.distribution, IntDistribution) and value != int(value):
            return None
        return value if low <= value <= high else None

    def ends(self) -> tuple[Any, ...]:
        """Values that show whether the recipe takes them all."""
        if self.values:
            return self.values
        return (self.distribution.low, self.distribution.high)  # pyright: ignore[reportAttributeAccessIssue]


def label(value: Any) -> Any:
    """What stands for a value among Optuna's choices, and in tables."""
    if isinstance(value, Mapping) and set(value) == {"kind"}:
        return value["kind"]
    if isinstance(value, str | bool | int | float):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
