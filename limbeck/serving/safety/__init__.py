"""Emergencies in questions, requests that are refused, answers that are withheld; no model."""

from limbeck.serving.safety.check import Verdict, check_answer, find_red_flags, refuse_request
from limbeck.serving.safety.rules import CompiledRules, Finding, compile_rules

__all__ = [
    "CompiledRules",
    "Finding",
    "Verdict",
    "check_answer",
    "compile_rules",
    "find_red_flags",
    "refuse_request",
]
