"""The facts of a domain, ready to be looked up: names by their beginning, expressions compiled."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from limbeck.contracts.artifacts import hash_file, hash_text
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.facts import FACTS_FILE, SUBJECT, FactsFile, Language, StoredFact
from limbeck.serving.safety.canonical import CJK_SPACE, INVISIBLE, LOOKALIKES, SPACES, TO_SIMPLIFIED

START_CHARS = 2
"""By so many characters names are found; a shorter name could be anything."""
END_MARKS = " ?。.!~"


@dataclass(frozen=True)
class FactStore:
    """The facts of one domain."""

    key: str = ""
    """Content hash of the file: which facts exactly answered."""
    pack: str = ""
    title: Mapping[Language, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    """A name in canonical spelling to its subject."""
    names_by_start: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """First characters to the names that have them, the longest first."""
    questions: tuple[tuple[str, Language, re.Pattern[str]], ...] = ()
    """A relation, a language, and what matches a whole question for it."""
    facts: Mapping[tuple[str, str], StoredFact] = field(default_factory=dict)
    """By subject and relation."""


NO_FACTS = FactStore()
"""Answers nothing."""


def spell(text: str) -> str:
    """A text in canonical spelling, for matching only; never shown to anybody.

    Half width, lower case, simplified characters, no invisible ones, no apostrophes, no spaces
    between Chinese characters. Misspelt words stay: a name that was guessed is not certain.
    """
    text = INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold()
    text = text.translate(LOOKALIKES).translate(TO_SIMPLIFIED)
    return SPACES.sub(" ", CJK_SPACE.sub("", text)).strip(END_MARKS)


def make_store(file: FactsFile, *, key: str = "") -> FactStore:
    """The facts ready to be looked up; `key`: the hash of the file that holds them.

    Raises:
        ValueError: two subjects share a name, or a name cannot be recognised in a text.
    """
    names: dict[str, str] = {}
    for subject, spellings in file.names.items():
        for name in map(spell, spellings):
            if len(name) < START_CHARS or SUBJECT in name:
                raise ValueError(f"{subject!r} has the name {name!r}, too short to be found")
            if names.setdefault(name, subject) != subject:
                raise ValueError(f"{name!r} is a name of {names[name]!r} and of {subject!r}")
    by_start: dict[str, list[str]] = {}
    for name in sorted(names, key=len, reverse=True):
        by_start.setdefault(name[:START_CHARS], []).append(name)
    return FactStore(
        key or hash_text(file.model_dump_json()),
        file.pack,
        file.title,
        names,
        {start: tuple(found) for start, found in by_start.items()},
        tuple(
            (relation, language, re.compile(expression))
            for (relation, language), expression in file.wording.expressions().items()
        ),
        {(fact.subject, fact.relation): fact for fact in file.facts},
    )


def read_store(folder: Path) -> FactStore:
    """The facts in a folder: a corpus, or any other with a `facts.json`.

    Raises:
        ArtifactError: there are none, or they are damaged.
    """
    path = folder / FACTS_FILE
    if not path.is_file():
        raise ArtifactError(
            f"{folder}: holds no {FACTS_FILE}, so its facts cannot be served; name a corpus whose "
            "pack has a wording.yaml, and make it again with `limbeck run` if it is older than that"
        )
    try:
        file = FactsFile.model_validate_json(path.read_text(encoding="utf-8"))
        return make_store(file, key=hash_file(path))
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged ({error}); make the corpus again") from None
