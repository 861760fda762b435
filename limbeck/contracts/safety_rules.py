"""The safety rules of a domain, as data: red flags, refused requests, withheld answers.

A pack holds them in `safety.yaml`, a bundle in its `answer_policy.json`. How a text is matched
against them is in `limbeck.serving.safety`; nothing here reads a question.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from limbeck.contracts.config import Config
from limbeck.contracts.fields import Text
from limbeck.contracts.macros import expand


class Country(Config):
    """Whom to call in one country."""

    ambulance: Text
    """The number of the emergency medical service."""
    crisis: Text
    """Whom a person in a mental crisis reaches."""


class Spelling(Config):
    """Other spellings of the words that the expressions use, put right before they are matched."""

    respell: Mapping[str, tuple[Text, ...]] = {}
    """A Chinese word, and how it is mistyped."""
    pinyin: Mapping[str, Text] = {}
    """A Chinese word with its pinyin, syllables apart, no tones."""
    words: tuple[Text, ...] = ()
    """English words in which one wrong letter is put right."""
    not_words: tuple[Text, ...] = ()
    """Words that look like a mistyped one and are right."""


class Calm(Config):
    """Wording that takes a part of a question out of what the red flags are looked for in."""

    pattern: Text
    scope: Literal["match", "clause", "text"] = "match"
    """What is taken out: what the expression matches, the clause around it, or all."""
    unless: str = ""
    """An expression that keeps everything if it is found anywhere in the text."""


class SafetyRule(Config):
    """One kind of finding: what it is found by, and what is then printed."""

    name: Text
    any_of: Annotated[tuple[tuple[Text, ...], ...], Field(min_length=1)]
    """Groups of regular expressions; the rule holds where all of one group are found."""
    unless: str = ""
    """An expression that, found in the text, keeps the rule from holding."""
    zh: Text
    en: Text
    """What is printed; {ambulance} and {crisis} stand for the country's numbers."""


class SafetyRules(Config):
    """The content of `safety.yaml`. Empty: nothing is found, refused or withheld."""

    country: str = ""
    """The key of `countries` whose numbers are given where nothing else is set."""
    countries: Mapping[str, Country] = {}
    macros: Mapping[str, Text] = {}
    """Parts of expressions by name; `<name>` in an expression stands for them."""
    spelling: Spelling = Spelling()
    calm: tuple[Calm, ...] = ()
    red_flags: tuple[SafetyRule, ...] = ()
    """Signs in a question that call for help at once."""
    requests: tuple[SafetyRule, ...] = ()
    """Questions that are refused."""
    answers: tuple[SafetyRule, ...] = ()
    """Answers of a model that are withheld."""

    @model_validator(mode="after")
    def _check(self) -> "SafetyRules":
        if (self.country or self.rules()) and self.country not in self.countries:
            known = ", ".join(self.countries) or "none"
            raise ValueError(f"country {self.country!r} has no numbers; known: {known}")
        for text in self.expressions():
            expanded = self.expand(text)
            try:
                re.compile(expanded)
            except re.error as error:
                raise ValueError(f"{text!r} is no regular expression: {error}") from None
        for rule in self.rules():
            try:
                (rule.zh + rule.en).format(ambulance="", crisis="")
            except (KeyError, IndexError, ValueError):
                message = f"{rule.name!r}: its texts may hold {{ambulance}} and {{crisis}} only"
                raise ValueError(message) from None
        return self

    def rules(self) -> tuple[SafetyRule, ...]:
        """Red flags, requests and answers."""
        return (*self.red_flags, *self.requests, *self.answers)

    def expressions(self) -> tuple[str, ...]:
        """Every regular expression, as it is written."""
        calm = [text for item in self.calm for text in (item.pattern, item.unless) if text]
        found = [rule.unless for rule in self.rules() if rule.unless]
        groups = [text for rule in self.rules() for group in rule.any_of for text in group]
        return (*calm, *found, *groups)

    def expand(self, expression: str) -> str:
        """An expression with its macros written out.

        Raises:
            ValueError: it names a macro that is not there, or macros name each other in a circle.
        """
        return expand(expression, macros=self.macros)
