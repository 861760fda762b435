"""What a recipe will cost, before any training: `plan` as data, `draw` as tables to read."""

from limbeck.planning.plan import plan
from limbeck.planning.tables import draw

__all__ = ["draw", "plan"]
