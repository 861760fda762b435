"""The schema of a domain pack: entity types, relations, question forms, classifications, names.

Everything that belongs to one domain stands in its files; nothing here knows a domain.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from limbeck.contracts.answer_policy import Emergency
from limbeck.contracts.config import Config
from limbeck.contracts.facts import Wording
from limbeck.contracts.fields import NonNegativeInt, PositiveFloat, PositiveInt, Text, Texts
from limbeck.contracts.safety_rules import SafetyRules

SPECIALTY = "specialty"
"""The attribute that every subject has: the specialty of its file."""
RESERVED = frozenset({"name", "english"})


class Names(Config):
    """A thing's names in two languages."""

    zh: Text
    en: Text


class Specialty(Names):
    """A branch of the domain, and the other names that sources give it."""

    departments: tuple[Text, ...] = ()


class EntityType(Names):
    """A type of names to be marked in texts."""

    votes: PositiveFloat = 1.0
    """Weight of such a name where a text's names decide on its specialty."""


class Attribute(Config):
    """One list that a subject may hold."""

    entity: str = ""
    """The entity type of its items; empty: they are no names."""
    min_items: NonNegativeInt = 1


class Relation(Names):
    """One thing that can be asked about a subject."""

    answer: Literal["single", "list"]
    attributes: tuple[Text, ...] = ()
    """Attributes whose items answer it; none: the pack holds no such facts, only forms."""
    triples: str = ""
    """Its name in files of triples; empty: the relation's own."""


class Classification(Config):
    """A task: from some items of an attribute to the specialty of the subject that has them."""

    attribute: Text
    task: str = ""
    """The name of its questions in evaluation; empty: the classification's own."""
    set_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2, 3, 4)
    """How many items a question names."""


class Phrases(Config):
    """Regular expressions for phrases by which the quality of a free answer shows."""

    evasive: tuple[Text, ...] = ()
    spam: tuple[Text, ...] = ()
    advice: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _check_patterns(self) -> "Phrases":
        for text in (*self.evasive, *self.spam, *self.advice):
            try:
                re.compile(text)
            except re.error as error:
                raise ValueError(f"{text!r} is no regular expression: {error}") from None
        return self

    def pattern(self, kind: Literal["evasive", "spam", "advice"]) -> re.Pattern[str]:
        """One expression for all phrases of a kind; without phrases it matches nothing."""
        phrases = {"evasive": self.evasive, "spam": self.spam, "advice": self.advice}[kind]
        return re.compile("|".join(phrases) or r"(?!)")


class Unknown(Config):
    """Names of things that the pack holds nothing about."""

    train: tuple[Text, ...] = ()
    evaluation: tuple[Text, ...] = ()


class QuestionForms(Config):
    """How a relation or a classification is asked, and how its facts are stated."""

    train: Texts
    evaluation: Texts
    """Never trained on."""
    statements: tuple[Text, ...] = ()


class PackDescription(Config):
    """The content of `pack.yaml`."""

    name: Text
    title: Names
    language: Literal["zh", "en"]
    """Which of the two names of a specialty its texts use."""
    joiner: Text
    """Stands between the items of a list answer."""
    unknown_answer: Text
    disclaimer: Names
    """Printed with every answer of a model of this domain."""
    emergencies: tuple[Emergency, ...] = ()
    """Signs in a question that call for help at once, and what is printed before the answer; plain
    expressions, where a pack has no `safety.yaml`."""
    subject: Text
    """The entity type of what facts are about."""
    entities: Annotated[Mapping[str, EntityType], Field(min_length=1)]
    attributes: Annotated[Mapping[str, Attribute], Field(min_length=1)]
    specialties: Annotated[Mapping[str, Specialty], Field(min_length=1)]
    relations: Annotated[Mapping[str, Relation], Field(min_length=1)]
    classifications: Mapping[str, Classification] = {}
    """By the name of their question forms."""
    tasks: Mapping[str, Names] = {}
    """Titles of evaluation tasks, those of other sources too."""
    headline_tasks: tuple[Text, ...] = ()
    """Tasks that an evaluation pools into the accuracy; none: all that hold questions."""
    unknown: Unknown = Unknown()
    phrases: Phrases = Phrases()

    @model_validator(mode="after")
    def _check_references(self) -> "PackDescription":
        wanted: list[tuple[str, str, Collection[str]]] = []
        wanted.append(("subject", self.subject, self.entities))
        for key, attribute in self.attributes.items():
            if attribute.entity:
                wanted.append((f"attribute {key!r}", attribute.entity, self.entities))
        known = {*self.attributes, SPECIALTY}
        for key, relation in self.relations.items():
            wanted += [(f"relation {key!r}", name, known) for name in relation.attributes]
        for key, task in self.classifications.items():
            wanted.append((f"classification {key!r}", task.attribute, self.attributes))
        for what, name, table in wanted:
            if name not in table:
                raise ValueError(f"{what} names {name!r}; known: {', '.join(sorted(table))}")
        if reserved := sorted({SPECIALTY, *RESERVED} & self.attributes.keys()):
            raise ValueError(f"{reserved[0]!r} cannot be the name of an attribute")
        return self

    def task_of(self, classification: str) -> str:
        """The name of a classification's questions in evaluation."""
        return self.classifications[classification].task or classification

    def specialty_name(self, key: str) -> str:
        """A specialty's name in the language of the pack's texts."""
        names = self.specialties[key]
        return names.zh if self.language == "zh" else names.en


class Subject(Config):
    """One thing that facts are about; every key besides its names is an attribute."""

    name: Text
    english: str = ""
    attributes: Mapping[str, tuple[Text, ...]] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather_attributes(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        names = {key: item for key, item in value.items() if key in RESERVED}
        return names | {"attributes": {k: v for k, v in value.items() if k not in RESERVED}}


class SpecialtyFacts(Config):
    """One file of facts: subjects of one specialty."""

    specialty: Text
    subjects: Annotated[tuple[Subject, ...], Field(min_length=1)]


class WrittenQuestion(Config):
    """A question that a person wrote, for evaluation only; its answer follows from the pack.

    It asks for facts, by `subject` and `relations`, or for a specialty.
    """

    question: Text
    subject: str = ""
    relations: tuple[Text, ...] = ()
    specialty: str = ""

    @model_validator(mode="after")
    def _check_answer(self) -> "WrittenQuestion":
        has_fact_questions = bool(self.subject and self.relations)
        if has_fact_questions == bool(self.specialty) or bool(self.subject) != bool(self.relations):
            raise ValueError("expected 'subject' and 'relations', or 'specialty' alone")
        if len(set(self.relations)) < len(self.relations):
            raise ValueError(f"relations {list(self.relations)} name one twice")
        return self


@dataclass(frozen=True)
class Pack:
    """A loaded pack."""

    folder: Path
    description: PackDescription
    forms: Mapping[str, QuestionForms]
    """By relation and by classification."""
    subjects: Mapping[str, Subject]
    specialty_of: Mapping[str, str]
    """A subject's name to its specialty's key."""
    written: Mapping[str, tuple[WrittenQuestion, ...]] = field(default_factory=dict)
    """Questions for evaluation only, by task."""
    safety: SafetyRules = field(default_factory=SafetyRules)
    wording: Wording = field(default_factory=Wording)
    """How facts are asked for beyond any doubt; empty: a service answers none by itself."""
    terms: Mapping[str, str] = field(default_factory=dict)
    """Items with their names in English."""

    def items(self, subject: str, relation: str) -> tuple[str, ...]:
        """What answers a relation of a subject; nothing where the pack has no such fact."""
        found: list[str] = []
        for attribute in self.description.relations[relation].attributes:
            if attribute == SPECIALTY:
                found.append(self.description.specialty_name(self.specialty_of[subject]))
            else:
                found += self.subjects[subject].attributes.get(attribute, ())
        return tuple(found)

    @cached_property
    def names(self) -> Mapping[str, str]:
        """The entity lexicon: each name to its type; a subject's name keeps the subject's type."""
        found = dict.fromkeys(self.subjects, self.description.subject)
        for key, attribute in self.description.attributes.items():
            if attribute.entity:
                for subject in self.subjects.values():
                    for name in subject.attributes.get(key, ()):
                        found.setdefault(name, attribute.entity)
        return found

    @cached_property
    def specialties_of_name(self) -> Mapping[str, tuple[str, ...]]:
        """The specialties whose subjects have this name or this named item."""
        named = [key for key, item in self.description.attributes.items() if item.entity]
        found: dict[str, dict[str, None]] = {}
        for name, subject in self.subjects.items():
            for item in (name, *(i for key in named for i in subject.attributes.get(key, ()))):
                found.setdefault(item, {})[self.specialty_of[name]] = None
        return {name: tuple(keys) for name, keys in found.items()}

    def votes(self, entity_type: str) -> float:
        """The weight of a name of this type; 1 for types that the pack does not know."""
        known = self.description.entities.get(entity_type)
        return known.votes if known else 1.0

    @cached_property
    def _departments(self) -> Mapping[str, str]:
        return {
            alias: key
            for key, specialty in self.description.specialties.items()
            for alias in (key, self.description.specialty_name(key), *specialty.departments)
        }

    def find_specialty(self, department: str) -> str:
        """The key of the specialty that a department belongs to, or ''."""
        return self._departments.get(department.strip(), "")
