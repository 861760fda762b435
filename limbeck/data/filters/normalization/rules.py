"""What every normalisation is made of: rules in an order, each with the reason that is counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from limbeck.contracts.records import Reason

OnChange = Callable[[Reason, str, str], None]
"""`on_change(reason, before, after)`: a rule has changed a text."""


@dataclass(frozen=True)
class Rule:
    """One step: a pure function of a text, and what it is called where changes are counted."""

    reason: Reason
    apply: Callable[[str], str]


def ignore_change(reason: Reason, before: str, after: str) -> None:
    """Counts nothing."""


def apply_rules(text: str, *, rules: Sequence[Rule], on_change: OnChange = ignore_change) -> str:
    """The text after every rule, once and in their order."""
    for rule in rules:
        changed = rule.apply(text)
        if changed != text:
            on_change(rule.reason, text, changed)
            text = changed
    return text
