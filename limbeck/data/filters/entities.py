"""Marking entities by the longest match of a lexicon (Aho-Corasick, leftmost first).

A pack derives the names from its facts; recipes add files of further ones.
"""

from collections.abc import Iterator, Mapping, Sequence

import ahocorasick

from limbeck.contracts.records import Entity, Record
from limbeck.data.packs.schema import Pack

MIN_NAME_CHARS = 2
"""Names of one character mark far too much."""


class Lexicon:
    """Finds names in texts; where two overlap, the leftmost and then the longest wins."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.num_names = 0
        self._automaton = ahocorasick.Automaton()
        for name, type_ in names.items():
            if len(name) >= MIN_NAME_CHARS:
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
        question, answer = self.find(record.question), self.find(record.answer)
        return (
            *(Entity(name, type_, start, "question") for start, name, type_ in question),
            *(Entity(name, type_, start, "answer") for start, name, type_ in answer),
        )


def guess_specialty(entities: Sequence[Entity], *, pack: Pack) -> str:
    """The specialty with the most votes of the entities' names; '' on a tie.

    How many votes a name has depends on its type, by the pack.
    """
    votes: dict[str, float] = {}
    for name, type_ in dict.fromkeys((entity.text, entity.type) for entity in entities):
        keys = pack.specialties_of_name.get(name, ())
        for key in keys:
            votes[key] = votes.get(key, 0.0) + pack.votes(type_) / len(keys)
    ranked = sorted(votes.items(), key=lambda item: -item[1])[:2]
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return ""
    return ranked[0][0]
