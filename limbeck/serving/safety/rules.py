"""Rules ready to match: expressions compiled once, numbers of one country filled in."""

import re
from dataclasses import dataclass
from typing import Literal

from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.safety_rules import Country, SafetyRule, SafetyRules
from limbeck.serving.safety.canonical import Speller, make_speller

NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True)
class RuleMatch:
    """A rule that holds for a text, and what is then printed."""

    name: str
    zh: str
    en: str

    def text(self) -> str:
        """Both languages in a line."""
        return f"{self.zh} / {self.en}"


@dataclass(frozen=True)
class CompiledRule:
    """A rule, ready to match."""

    finding: RuleMatch
    any_of: tuple[tuple[re.Pattern[str], ...], ...]
    unless: re.Pattern[str]

    def holds(self, text: str) -> bool:
        """Whether it holds for a text in canonical spelling."""
        # Plain loops: generators would cost as much as the expressions, in every request.
        for group in self.any_of:
            for part in group:
                if part.search(text) is None:
                    break
            else:
                return self.unless.search(text) is None
        return False


@dataclass(frozen=True)
class CompiledCalm:
    """Calm wording, ready to match."""

    pattern: re.Pattern[str]
    scope: Literal["match", "clause", "text"]
    unless: re.Pattern[str]


@dataclass(frozen=True)
class CompiledRules:
    """The safety rules of a domain in one country."""

    speller: Speller
    calm: tuple[CompiledCalm, ...]
    red_flags: tuple[CompiledRule, ...]
    requests: tuple[CompiledRule, ...]
    answers: tuple[CompiledRule, ...]


def compile_rules(rules: SafetyRules, *, country: str = "") -> CompiledRules:
    """The rules ready to match, with the numbers of a country; '': the rules' own.

    Raises:
        UnknownNameError: the rules have no numbers of that country.
    """
    key = country or rules.country
    if key and key not in rules.countries:
        raise UnknownNameError(key, known=rules.countries, what="country")
    numbers = rules.countries[key] if key else Country(ambulance="-", crisis="-")

    def compiled(text: str) -> re.Pattern[str]:
        return re.compile(rules.expand(text)) if text else NOTHING

    def ready(rule: SafetyRule) -> CompiledRule:
        texts = (
            text.format(ambulance=numbers.ambulance, crisis=numbers.crisis)
            for text in (rule.zh, rule.en)
        )
        groups = tuple(tuple(map(compiled, group)) for group in rule.any_of)
        return CompiledRule(RuleMatch(rule.name, *texts), groups, compiled(rule.unless))

    return CompiledRules(
        make_speller(rules.spelling),
        tuple(
            CompiledCalm(compiled(item.pattern), item.scope, compiled(item.unless))
            for item in rules.calm
        ),
        tuple(map(ready, rules.red_flags)),
        tuple(map(ready, rules.requests)),
        tuple(map(ready, rules.answers)),
    )
