"""What the safety rules find in a question, and in a model's answer.

Pure functions of a text and of rules: no model, no state, no clock. A text cannot change the rules,
whatever it says of them.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from limbeck.serving.safety.canonical import views
from limbeck.serving.safety.rules import CompiledRule, CompiledRules, RuleMatch

CLAUSE = re.compile(r"[,。;!?\n:]|\.(?!\d)| but | although |但是?|不过|可是|就是|只是|而是")
TAKEN_OUT = "□"
"""Stands for wording that was taken out; no expression matches across it."""


@dataclass(frozen=True)
class SafetyVerdict:
    """What was found in an answer."""

    findings: tuple[RuleMatch, ...]

    @property
    def is_withheld(self) -> bool:
        """Whether the answer is not to be shown."""
        return bool(self.findings)


@dataclass(frozen=True)
class Screening:
    """What was found in a question."""

    red_flags: tuple[RuleMatch, ...]
    """The emergencies that it shows signs of, in the rules' order; they come first."""
    refusal: RuleMatch | None
    """Why it is refused: it asks for a prescription, a dose or an order; None: it is not."""


def screen_question(question: str, rules: CompiledRules) -> Screening:
    """Red flags and refusals at once: both read the question in the same canonical spelling."""
    texts = views(question, rules.speller)
    calm = dict.fromkeys(calm_down(text, rules) for text in texts)
    return Screening(_find(calm, rules.red_flags), next(iter(_find(texts, rules.requests)), None))


def find_red_flags(question: str, rules: CompiledRules) -> tuple[RuleMatch, ...]:
    """The emergencies that a question shows signs of, in the rules' order."""
    return screen_question(question, rules).red_flags


def refuse_request(question: str, rules: CompiledRules) -> RuleMatch | None:
    """Why a question is refused; None: it is not. A red flag comes first: look for those before."""
    return screen_question(question, rules).refusal


def check_answer(answer: str, rules: CompiledRules) -> SafetyVerdict:
    """What a model's answer holds that may not be shown: a dose, an order, a certain diagnosis."""
    return SafetyVerdict(_find(views(answer, rules.speller), rules.answers))


def _find(texts: Collection[str], rules: Sequence[CompiledRule]) -> tuple[RuleMatch, ...]:
    found: list[RuleMatch] = []
    for rule in rules:
        for text in texts:
            if rule.holds(text):
                found.append(rule.finding)
                break
    return tuple(found)


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
