"""Emergencies in questions, requests that are refused, answers that are withheld; no model."""

from limbeck.serving.safety.check import (
    SafetyVerdict,
    Screening,
    check_answer,
    find_red_flags,
    refuse_request,
    screen_question,
)
from limbeck.serving.safety.rules import CompiledRules, RuleMatch, compile_rules

__all__ = [
    "CompiledRules",
    "RuleMatch",
    "SafetyVerdict",
    "Screening",
    "check_answer",
    "compile_rules",
    "find_red_flags",
    "refuse_request",
    "screen_question",
]
