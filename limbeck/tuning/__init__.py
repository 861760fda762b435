"""`limbeck tune`: the settings of a distillation searched, with a report and a recipe that runs."""

from limbeck.tuning.quick_check import SECONDS as QUICK_SECONDS
from limbeck.tuning.quick_check import quick_check
from limbeck.tuning.quick_check_report import make_page, write_quick_check
from limbeck.tuning.report import make_table, write_report
from limbeck.tuning.space import make_space, read_tuning
from limbeck.tuning.study import Search, check_outcome, describe, search

__all__ = [
    "QUICK_SECONDS",
    "Search",
    "check_outcome",
    "describe",
    "make_page",
    "make_space",
    "make_table",
    "quick_check",
    "read_tuning",
    "search",
    "write_quick_check",
    "write_report",
]
