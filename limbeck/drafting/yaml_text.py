"""Values as they stand in one line of a recipe."""

import math
from collections.abc import Mapping

import yaml


def flow(value: Mapping[str, object]) -> str:
    """A mapping in one line."""
    return yaml.safe_dump(
        dict(value), default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf
    ).strip()


def scalar(text: str) -> str:
    """A text, quoted where it would be read as something else."""
    return yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=math.inf)[1:-2]
