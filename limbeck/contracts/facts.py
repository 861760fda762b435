"""The facts of a domain as a service answers them, and the wording of questions for them.

`facts.json` lies in a corpus whose pack says how its facts are asked for. How a question is matched
is in `limbeck.serving.facts`; nothing here reads one.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from limbeck.contracts.config import Config
from limbeck.contracts.fields import Text, Texts
from limbeck.contracts.macros import expand

FACTS_FILE = "facts.json"
SUBJECT = "\ue000"
"""Stands for the subject's name in an expression and in a question; private, so in no text."""
REPEATED = re.compile(r"(?<!\\)\)(?:[*+]|\{\d*,\d*\})(?!\+)")
"""A repeated group that may give back what it matched; two readings of one text double the time."""
QUESTION = "<question>"
"""Stands for the expression in a frame."""
Language = Literal["zh", "en"]


class Wording(Config):
    """The content of a pack's `wording.yaml`: how its facts are asked for, beyond any doubt.

    An expression has to match a whole question, with the subject's name in the place of
    `<subject>`: whatever it does not provide for keeps the question from being answered.
    """

    macros: Mapping[str, Text] = {}
    """Parts of expressions by name; `<name>` in an expression stands for them."""
    frames: Mapping[Language, Text] = {}
    """What may stand around every question of a language, `<question>`; without one, nothing."""
    questions: Mapping[str, Mapping[Language, Texts]] = {}
    """By relation, then by language: regular expressions, for half width, lower case, simplified
    characters, no apostrophes, no mark at the end."""
    aliases: Mapping[str, Texts] = {}
    """A subject with other names of it: names of exactly the same thing."""

    @model_validator(mode="after")
    def _check(self) -> "Wording":
        if "subject" in self.macros or "question" in self.macros:
            raise ValueError("macros: <subject> and <question> stand for something already")
        for language, frame in self.frames.items():
            if frame.count(QUESTION) != 1:
                raise ValueError(f"frames.{language}: expected {QUESTION} once in {frame!r}")
        for relation, text, expression in self._expressions():
            if expression.count(SUBJECT) != 1:
                raise ValueError(f"{relation}: expected <subject> once in {text!r}")
            if REPEATED.search(expression):
                raise ValueError(
                    f"{text!r}: repeat a group with *+ or ++, so that no text takes long"
                )
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"{text!r} is no regular expression: {error}") from None
        return self

    def expressions(self) -> dict[tuple[str, Language], str]:
        """One expression for each relation and language, with its frame and its macros."""
        found: dict[tuple[str, Language], str] = {}
        for relation, languages in self.questions.items():
            for language, texts in languages.items():
                whole = "|".join(f"(?:{self._expand(text)})" for text in texts)
                frame = self.frames.get(language, QUESTION)
                before, after = (self._expand(part) for part in frame.split(QUESTION))
                found[relation, language] = f"{before}(?:{whole}){after}"
        return found

    def _expressions(self) -> Iterator[tuple[str, str, str]]:
        for relation, languages in self.questions.items():
            for language, texts in languages.items():
                frame = self.frames.get(language, QUESTION)
                for text in texts:
                    whole = frame.replace(QUESTION, f"(?:{text})")
                    yield relation, text, self._expand(whole)

    def _expand(self, text: str) -> str:
        return expand(text, macros={**self.macros, "subject": SUBJECT})


class StoredFact(Config):
    """What answers one relation of one subject."""

    subject: Text
    relation: Text
    texts: Annotated[Mapping[Language, Text], Field(min_length=1)]
    """The answer by language; a question in another language is not answered."""

    @property
    def id(self) -> str:
        """Its name, by which it is found in the pack."""
        return f"{self.subject}|{self.relation}"


class FactsFile(Config):
    """The content of `facts.json`."""

    pack: Text
    title: Mapping[Language, Text]
    names: Annotated[Mapping[str, Texts], Field(min_length=1)]
    """A subject to all its names, its own among them."""
    facts: Annotated[tuple[StoredFact, ...], Field(min_length=1)]
    wording: Wording

    @model_validator(mode="after")
    def _check(self) -> "FactsFile":
        for fact in self.facts:
            if fact.subject not in self.names:
                raise ValueError(f"the fact {fact.id!r} is about a subject without a name")
        ids = [fact.id for fact in self.facts]
        if len(set(ids)) < len(ids):
            twice = next(item for item in ids if ids.count(item) > 1)
            raise ValueError(f"the fact {twice!r} stands there twice")
        return self
