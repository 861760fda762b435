"""What a recipe will cost, and what fits a device: plans as data, and as tables to read."""

from limbeck.planning.plan import list_models, plan
from limbeck.planning.tables import draw
from limbeck.planning.target_plan import plan_models, plan_target
from limbeck.planning.target_tables import draw_target
from limbeck.planning.targets import load_target

__all__ = [
    "draw",
    "draw_target",
    "list_models",
    "load_target",
    "plan",
    "plan_models",
    "plan_target",
]
