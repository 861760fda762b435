"""What the safety rules find in a question, and in a model's answer.

Pure functions of a text and of rules: no model, no state, no clock. A text cannot change the rules,
whatever it says of them.
"""

import re
from dataclasses import dataclass

from limbeck.serving.safety.canonical import views
from limbeck.serving.safety.rules import CompiledRules, Finding

CLAUSE = re.compile(r"[,。;!?\n:]|\.(?!\d)| but | although |但是?|不过|可是|就是|只是|而是")
TAKEN_OUT = "□"
"""Stands for wording that was taken out; no expression matches across it."""


@dataclass(frozen=True)
class Verdict:
    """What was found in an answer."""

    findings: tuple[Finding, ...]

    @property
    def is_withheld(self) -> bool:
        """Whether the answer is not to be shown."""
        return bool(self.findings)


def find_red_flags(question: str, rules: CompiledRules) -> tuple[Finding, ...]:
    """The emergencies that a question shows signs of, in the rules' order."""
    texts = [calm_down(view, rules) for view in views(question, rules.speller)]
    return tuple(
        rule.finding for rule in rules.red_flags if any(rule.holds(text) for text in texts)
    )


def refuse_request(question: str, rules: CompiledRules) -> Finding | None:
    """Why a question is refused: it asks for a prescription, a dose or an order; None: it is not.

    A red flag comes first: look for those before.
    """
    texts = views(question, rules.speller)
    found = (rule.finding for rule in rules.requests if any(rule.holds(text) for text in texts))
    return next(found, None)


def check_answer(answer: str, rules: CompiledRules) -> Verdict:
    """What a model's answer holds that may not be shown: a dose, an order, a certain diagnosis."""
    texts = views(answer, rules.speller)
    found = (rule.finding for rule in rules.answers if any(rule.holds(text) for text in texts))
    return Verdict(tuple(found))


def calm_down(text: str, rules: CompiledRules) -> str:
    """A text in canonical spelling without what is negated, past, general or meant otherwise."""
    for calm in rules.calm:
        if calm.scope == "clause":
            parts = CLAUSE.split(text)
            kept = [TAKEN_OUT if calm.pattern.search(part) else part for part in parts]
            if kept != parts and not calm.unless.search(text):
                text = ",".join(kept)
        elif calm.pattern.search(text) and not calm.unless.search(text):
            text = calm.pattern.sub(TAKEN_OUT, text) if calm.scope == "match" else ""
    return text
