"""Marking entities by the longest match of a lexicon (Aho-Corasick, leftmost first).

Left out: where the lexicon's names come from; a pack derives its own from its facts.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ahocorasick
from pydantic import Field

from limbeck.contracts.config import Config
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Entity, Record
from limbeck.data.filters.normalization.zh import clean
from limbeck.data.readers.base import read_lines

SHORTEST = 2
"""Names of one character mark far too much."""


class LexiconFile(Config):
    """A further list of names: one a line, a frequency after a tab allowed."""

    path: Path
    type: str = Field(min_length=1)
    """What the names are: disease, symptom, drug or another word."""


class Lexicon:
    """Finds names in texts; where two overlap, the leftmost and then the longest wins."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.num_names = 0
        self._automaton = ahocorasick.Automaton()
        for name, type_ in names.items():
            if len(name) >= SHORTEST:
                self.num_names += self._automaton.add_word(name, (name, type_))
        if self.num_names:
            self._automaton.make_automaton()

    def find(self, text: str) -> Iterator[tuple[int, str, str]]:
        """Each mention: where it starts, the name, and its type."""
        if not self.num_names:
            return
        for end, (name, type_) in self._automaton.iter_long(text):
            yield end - len(name) + 1, name, type_

    def mark(self, record: Record) -> tuple[Entity, ...]:
        """The entities of a record's question and answer."""
        asked, said = self.find(record.question), self.find(record.answer)
        return (
            *(Entity(name, type_, start, "question") for start, name, type_ in asked),
            *(Entity(name, type_, start, "answer") for start, name, type_ in said),
        )


def guess_specialty(entities: Sequence[Entity], specialties: Mapping[str, Sequence[str]]) -> str:
    """The specialty most of the entities belong to, a disease counting thrice; '' on a tie."""
    votes: dict[str, float] = {}
    for name, type_ in {(entity.text, entity.type) for entity in entities}:
        keys = specialties.get(name, ())
        for key in keys:
            weight = 3 if type_ == "disease" else 1
            votes[key] = votes.get(key, 0.0) + weight / len(keys)
    ranked = sorted(votes.items(), key=lambda item: -item[1])[:2]
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return ""
    return ranked[0][0]


def read_names(config: LexiconFile) -> list[str]:
    """The cleaned names of a lexicon file.

    Raises:
        DataError: the file is missing, or holds no name.
    """
    _, lines = read_lines(config.path)
    names = [clean(line.split("\t")[0]) for _, line in lines]
    names = [name for name in names if name]
    if not names:
        raise DataError("holds no name; expected one a line", path=config.path)
    return names
