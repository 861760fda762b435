"""What a recipe will cost, before any training: `plan` as data, `draw` as tables to read."""

from limbeck.cli.planning.drawing import draw
from limbeck.cli.planning.rows import plan

__all__ = ["draw", "plan"]
