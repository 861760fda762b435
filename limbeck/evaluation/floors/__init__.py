"""Floors: what answers the same questions from the training records alone, without a model.

A model that a floor beats has learnt less than a table look-up. Every floor answers as a model
does, so that one code scores both.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from limbeck.contracts.artifacts import hash_text
from limbeck.contracts.records import Question, Record
from limbeck.env.progress import track
from limbeck.evaluation.answer_questions import AnsweredQuestion, record_answer
from limbeck.evaluation.floors.methods import Missing, find_method
from limbeck.evaluation.floors.named_entities import EntityIndex
from limbeck.evaluation.floors.text_pool import TextIndex, TextPool
from limbeck.evaluation.tasks import Response

MAX_RECORDS = 50_000
"""Training records looked at, drawn by a hash of their ids."""


@dataclass(frozen=True)
class Floor:
    """The answers of one floor, and the tasks that it cannot answer with the reason."""

    name: str
    answered: tuple[AnsweredQuestion, ...]
    missing: Mapping[str, Missing] = field(default_factory=dict)


def make_floors(
    read_records: Callable[[], Iterable[Record]],
    *,
    folder: Path,
    questions: Sequence[Question],
    names: Sequence[str],
) -> tuple[Floor, ...]:
    """Every named floor, made from training records alone, with its answers to the questions.

    The records are read once for texts and once for images, which are files in `folder`, and only
    those drawn are held. Where no training question has a marked name, there is no `entity_lookup`.
    """
    if not names:
        return ()
    texts = TextIndex(_draw(item for item in read_records() if item.question and not item.images))
    entities = EntityIndex(texts.records)
    with_images = TextIndex([])
    if any(question.images for question in questions):
        chosen = _draw(item for item in read_records() if item.question and item.images)
        with_images = TextIndex(chosen)
    methods = {name: find_method(name) for name in names}
    if not entities.has_names:
        methods = {name: item for name, item in methods.items() if not item.needs_names}
    answers: dict[str, dict[int, Response]] = {name: {} for name in methods}
    missing: dict[str, dict[str, Missing]] = {name: {} for name in methods}
    tasks: dict[str, list[int]] = {}
    for place, question in enumerate(questions):
        tasks.setdefault(question.task, []).append(place)
    with track("floors", total=len(tasks) * len(methods), unit="tasks") as advance:
        for task, places in tasks.items():
            members = [questions[place] for place in places]
            about_images = any(question.images for question in members)
            pool = TextPool(with_images if about_images else texts, members)
            for name, method in methods.items():
                found: list[Response] | Missing
                if not pool.places:
                    found = "no training record of this kind"
                elif about_images:
                    found = method.answer_images(pool, folder=folder)
                else:
                    found = method.answer_texts(pool, entities=entities)
                if isinstance(found, str):
                    missing[name][task] = found
                else:
                    answers[name] |= dict(zip(places, found, strict=True))
                advance(1)
    return tuple(
        Floor(
            name,
            tuple(
                record_answer(questions[place], response)
                for place, response in sorted(answers[name].items())
            ),
            missing[name],
        )
        for name in methods
    )


def _draw(records: Iterable[Record]) -> list[Record]:
    """At most so many records, by a hash of their ids, in their own order."""
    ranked = ((hash_text(record.id), place, record) for place, record in enumerate(records))
    drawn = heapq.nsmallest(MAX_RECORDS, ranked, key=lambda item: item[:2])
    return [record for _, _, record in sorted(drawn, key=lambda item: item[1])]
