"""Plausible worse answers to questions about facts, for preferences."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from limbeck.contracts.records import Question, Record
from limbeck.data.packs.fact_questions import Fact, draw
from limbeck.data.packs.schema import Pack

REFUSED_RATIO = 0.25
"""Share of known facts whose worse answer is to say that one does not know."""
MAX_TRIES = 50


def add_rejected(
    items: Iterable[Record | Question], *, facts: Sequence[Fact], pack: Pack, seed: int
) -> Iterator[Record | Question]:
    """Records that ask one relation get a plausible worse answer; the rest comes as it is.

    What the pack holds is rejected in favour of another subject's items of the same relation, or of
    a refusal; a refusal that is due, in favour of some subject's items.
    """
    joiner, unknown = pack.description.joiner, pack.description.unknown_answer
    answers: dict[str, list[str]] = {}
    for fact in facts:
        answers.setdefault(fact.relation, []).append(joiner.join(fact.items))
    for record in items:
        relation = record.group.split("|")[1] if record.group.count("|") == 2 else ""
        if isinstance(record, Question) or not record.question or relation not in answers:
            yield record
            continue
        chooser = draw(seed, "rejected", record.id)
        if record.answer != unknown and chooser.random() < REFUSED_RATIO:
            yield dataclasses.replace(record, rejected=unknown)
            continue
        for _ in range(MAX_TRIES):
            other = chooser.choice(answers[relation])
            if set(other.split(joiner)).isdisjoint(record.answer.split(joiner)):
                yield dataclasses.replace(record, rejected=other)
                break
        else:
            yield record
