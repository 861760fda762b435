"""`limbeck tune`: the settings of a distillation searched, with a report and a recipe that runs."""

from limbeck.tuning.report import make_table, write_report
from limbeck.tuning.space import make_space, read_tuning
from limbeck.tuning.study import Search, check_outcome, describe, search

__all__ = [
    "Search",
    "check_outcome",
    "describe",
    "make_space",
    "make_table",
    "read_tuning",
    "search",
    "write_report",
]
