"""From facts to training records and evaluation questions, by question forms.

Forms kept for evaluation never make a record. Every draw hangs on the seed and on the fact's own
name, so that adding a fact does not move the others.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar

from limbeck.contracts.config import Config
from limbeck.contracts.fields import NonNegativeInt
from limbeck.contracts.records import Question, Record
from limbeck.data.packs.schema import Pack

Item = TypeVar("Item")

RECALL, CHOICE, REFUSAL = "recall", "choice", "refusal"
GENERATED_TASKS = (RECALL, CHOICE, REFUSAL)
"""Tasks whose questions are made from facts and forms."""
NUM_OPTIONS = 4
MAX_TRIES = 200


@dataclass(frozen=True)
class Fact:
    """What answers one relation of one subject."""

    subject: str
    relation: str
    items: tuple[str, ...]
    specialty: str = ""
    place: str = ""


class FactsConfig(Config):
    """How many records and questions facts make."""

    forms_per_fact: NonNegativeInt = 6
    """Training forms of each fact, a fixed random choice of the pack's."""
    rl_forms: NonNegativeInt = 2
    """Of the forms that `forms_per_fact` leaves out, so many for each fact where `split: rl`."""
    statements_per_fact: NonNegativeInt = 1
    """Plain-text statements of each fact, for pre-training."""
    recall_questions: NonNegativeInt = 400
    """Most evaluation questions to answer freely, drawn evenly over specialties and relations."""
    choice_questions: NonNegativeInt = 400
    """Most evaluation questions with four options, drawn the same way."""


def draw(*parts: object) -> random.Random:
    """A generator that depends on the parts and on nothing else."""
    return random.Random(":".join(map(str, parts)))


FactSplit = Literal["sft", "rl"]


def fact_records(
    facts: Sequence[Fact],
    *,
    pack: Pack,
    config: FactsConfig,
    source: str,
    seed: int,
    split: FactSplit = "sft",
) -> Iterator[Record]:
    """Each fact asked in some of the training forms, and stated as plain text.

    The split `rl` asks it in other training forms, and has no statements.
    """
    joiner = pack.description.joiner
    for fact in facts:
        forms = pack.forms[fact.relation]
        chooser = draw(seed, fact.subject, fact.relation)
        answer = joiner.join(fact.items)
        chosen = chooser.sample(
            range(len(forms.train)), min(config.forms_per_fact, len(forms.train))
        )
        if split == "rl":
            left = sorted(set(range(len(forms.train))) - set(chosen))
            chosen = chooser.sample(left, min(config.rl_forms, len(left)))
        for index in sorted(chosen):
            group = f"{fact.subject}|{fact.relation}|{index}"
            yield Record(
                id=f"{source}:{group}",
                question=forms.train[index].format(subject=fact.subject),
                answer=answer,
                group=group,
                source=source,
                specialty=fact.specialty,
                place=fact.place,
                answer_form=pack.description.relations[fact.relation].answer,
            )
        if split == "rl":
            continue
        stated = chooser.sample(
            range(len(forms.statements)), min(config.statements_per_fact, len(forms.statements))
        )
        for index in sorted(stated):
            group = f"{fact.subject}|{fact.relation}|statement {index}"
            text = forms.statements[index].format(subject=fact.subject, items=answer)
            yield Record(
                id=f"{source}:{group}",
                question="",
                answer=text,
                group=group,
                source=source,
                specialty=fact.specialty,
                place=fact.place,
            )


def recall_questions(
    facts: Sequence[Fact], *, pack: Pack, count: int, source: str, seed: int
) -> Iterator[Question]:
    """Facts asked in a form never trained on, to be answered freely."""
    for fact in draw_evenly(facts, key=_cell, count=count, seed=f"{seed}:recall"):
        text, group = _ask(fact, pack=pack, seed=seed)
        yield Question(
            id=f"{source}:recall:{group}",
            task=RECALL,
            question=text,
            answers=fact.items,
            form=pack.description.relations[fact.relation].answer,
            specialty=fact.specialty,
            group=group,
        )


def choice_questions(
    facts: Sequence[Fact], *, pack: Pack, count: int, source: str, seed: int
) -> Iterator[Question]:
    """Facts asked in a form never trained on, with the answers of three others that are wrong.

    The others are of the same specialty where there are enough: a wrong answer from another branch
    of the domain could be recognised by its subject alone.
    """
    joiner = pack.description.joiner
    answers: dict[object, list[tuple[str, ...]]] = {}
    known: dict[tuple[str, str], set[str]] = {}
    for fact in facts:
        for place in (fact.relation, _cell(fact)):
            answers.setdefault(place, []).append(fact.items)
        known.setdefault((fact.subject, fact.relation), set()).update(fact.items)
    made = 0
    for fact in draw_evenly(facts, key=_cell, count=len(facts), seed=f"{seed}:choice"):
        if made == count:
            return
        chooser = draw(seed, "options", fact.subject, fact.relation)
        right = known[fact.subject, fact.relation]
        wrong = _draw_wrong(
            [answers[_cell(fact)], answers[fact.relation]], right=right, chooser=chooser
        )
        if len(wrong) < NUM_OPTIONS - 1:
            continue
        made += 1
        options = [joiner.join(items) for items in (fact.items, *wrong)]
        chooser.shuffle(options)
        text, group = _ask(fact, pack=pack, seed=seed)
        yield Question(
            id=f"{source}:choice:{group}",
            task=CHOICE,
            question=text,
            form="choice",
            answers=(joiner.join(fact.items),),
            options=tuple(options),
            specialty=fact.specialty,
            group=group,
        )


def _draw_wrong(
    pools: Sequence[Sequence[tuple[str, ...]]], *, right: set[str], chooser: random.Random
) -> list[tuple[str, ...]]:
    """Answers that share no item with the right one nor with each other, from the first pools."""
    wrong: list[tuple[str, ...]] = []
    taken = set(right)
    for pool in pools:
        for items in chooser.sample(pool, min(len(pool), MAX_TRIES)):
            if len(wrong) == NUM_OPTIONS - 1:
                return wrong
            if taken.isdisjoint(items):
                wrong.append(items)
                taken.update(items)
    return wrong


def _ask(fact: Fact, *, pack: Pack, seed: int) -> tuple[str, str]:
    """A fact in one of the forms kept for evaluation, and its group."""
    forms = pack.forms[fact.relation].evaluation
    index = _draw_form(fact, pack=pack, seed=seed)
    return forms[index].format(subject=fact.subject), fact_group(fact, pack=pack, seed=seed)


def fact_group(fact: Fact, *, pack: Pack, seed: int) -> str:
    """The group of all questions about a fact."""
    index = _draw_form(fact, pack=pack, seed=seed)
    return f"{fact.subject}|{fact.relation}|evaluation {index}"


def _draw_form(fact: Fact, *, pack: Pack, seed: int) -> int:
    num_forms = len(pack.forms[fact.relation].evaluation)
    return draw(seed, "ask", fact.subject, fact.relation).randrange(num_forms)


def _cell(fact: Fact) -> tuple[str, str]:
    return fact.specialty, fact.relation


def draw_evenly(
    items: Sequence[Fact], *, key: Callable[[Fact], object], count: int, seed: str
) -> list[Fact]:
    """Up to `count` items, taken in turn from each value of the key, at random within it."""
    chooser = draw(seed)
    cells = _shuffle_cells(items, key=key, chooser=chooser)
    chooser.shuffle(cells)
    return list(_take_in_turn(cells, count=count))


def take_evenly(questions: Sequence[Question], *, count: int, seed: str) -> Iterator[Question]:
    """Up to `count` questions, taken in turn from each specialty, in the order of the first."""
    cells = _shuffle_cells(questions, key=lambda item: item.specialty, chooser=draw(seed))
    return _take_in_turn(cells, count=count)


def _shuffle_cells(
    items: Sequence[Item], *, key: Callable[[Item], object], chooser: random.Random
) -> list[list[Item]]:
    """The items by their key, each cell in random order."""
    cells: dict[object, list[Item]] = {}
    for item in items:
        cells.setdefault(key(item), []).append(item)
    return [chooser.sample(cell, len(cell)) for cell in cells.values()]


def _take_in_turn(cells: Sequence[Sequence[Item]], *, count: int) -> Iterator[Item]:
    deepest = max(map(len, cells), default=0)
    turns = (cell[depth] for depth in range(deepest) for cell in cells if depth < len(cell))
    return islice(turns, count)
