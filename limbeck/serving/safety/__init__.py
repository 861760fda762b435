"""Emergencies in questions, requests that are refused, answers that are withheld; no model."""

from limbeck.serving.safety.check import (
    Screening,
    Verdict,
    check_answer,
    find_red_flags,
    refuse_request,
    screen_question,
)
from limbeck.serving.safety.rules import CompiledRules, Finding, compile_rules

__all__ = [
    "CompiledRules",
    "Finding",
    "Screening",
    "Verdict",
    "check_answer",
    "compile_rules",
    "find_red_flags",
    "refuse_request",
    "screen_question",
]
