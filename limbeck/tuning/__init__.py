"""`limbeck tune`: the settings of a distillation searched, with a report and a recipe that runs."""

from limbeck.tuning.outcome import Search, check_outcome, describe
from limbeck.tuning.quick_check import SECONDS as QUICK_SECONDS
from limbeck.tuning.quick_check import quick_check
from limbeck.tuning.quick_check_report import make_page, write_quick_check
from limbeck.tuning.report import make_confirmed_table, make_table, write_report
from limbeck.tuning.space import make_space, read_tuning
from limbeck.tuning.study import search
from limbeck.tuning.summary import explain, warn

__all__ = [
    "QUICK_SECONDS",
    "Search",
    "check_outcome",
    "describe",
    "explain",
    "make_confirmed_table",
    "make_page",
    "make_space",
    "make_table",
    "quick_check",
    "read_tuning",
    "search",
    "warn",
    "write_quick_check",
    "write_report",
]
