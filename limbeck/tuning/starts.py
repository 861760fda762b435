"""Settings that are tried before the sampler chooses: the recipe's own, and those of a list."""

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.contracts.errors import Fault
from limbeck.contracts.recipe import TUNE, Recipe
from limbeck.tuning.config import Tuning
from limbeck.tuning.dimensions import Dimension


def make_starts(
    recipe: Recipe,
    tuning: Tuning,
    *,
    dimensions: Sequence[Dimension],
    own: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], list[Fault]]:
    """What Optuna tries first, each once, the recipe's own before all; and what is wrong.

    Of the built-in list, what lies outside the space is left out; of the recipe's, it is a fault.
    """
    by_path = {item.path: item for item in dimensions}
    written = "start_from" in tuning.model_fields_set
    found, faults = [dict(own)], []
    for index, start in enumerate(tuning.start_from):
        given = {
            path: by_path[path].encode(value) if path in by_path else None
            for path, value in start.items()
        }
        outside = [path for path, value in given.items() if value is None]
        if not outside and (params := dict(own) | given) not in found:
            found.append(params)
        line = recipe.line(TUNE, "start_from")
        for path in outside if written else ():
            message = _explain(path, start[path], by_path)
            faults.append(Fault(f"tune.start_from.{index}", message, line))
    return found, faults


def _explain(path: str, value: Any, by_path: Mapping[str, Dimension]) -> str:
    if path not in by_path:
        return f"{path!r} is not searched; searched are: {', '.join(by_path)}"
    item = by_path[path]
    among = ", ".join(map(repr, item.ends())) if item.values else "{} to {}".format(*item.ends())
    return f"the value {value!r} of {path} lies outside its space: {among}"
