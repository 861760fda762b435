"""Questions that people wrote for evaluation: a pack's `evaluation/TASK.jsonl`.

A line holds a question and what it asks for, by reference; the answer is the pack's own. Nothing
here is ever trained on: what nearly equals a training form is refused when the pack is read, what
nearly equals a training record when a corpus is prepared.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from limbeck.contracts.errors import DataError, UnknownNameError
from limbeck.contracts.leaks import (
    MIN_SIMILARITY_RATIO,
    NearIndex,
    character_pairs,
    normalise,
)
from limbeck.contracts.records import Question
from limbeck.data.packs.fact_questions import GENERATED_TASKS, Fact, fact_group, take_evenly
from limbeck.data.packs.schema import Pack, WrittenQuestion

NUM_CHANGED_PAIRS = 2
"""Pairs that a form may gain or lose where digits or marks meet what fills it, at most."""


def read_written(folder: Path, *, pack: Pack) -> dict[str, tuple[WrittenQuestion, ...]]:
    """Every task's questions, by the names of the files; none where there is no such folder.

    Raises:
        DataError: a file is empty or has the name of another task; a line is damaged, names what
            the pack does not hold, repeats a question, or nearly equals a training form.
    """
    description = pack.description
    generated = {*GENERATED_TASKS, *map(description.task_of, description.classifications)}
    found: dict[str, tuple[WrittenQuestion, ...]] = {}
    first_place: dict[str, str] = {}
    forms = _read_forms(pack)
    for path in sorted(folder.glob("*")):
        if path.suffix != ".jsonl":
            raise DataError("expected files TASK.jsonl and no others", path=path)
        if path.stem in generated:
            raise DataError(f"{path.stem!r} is a task of generated questions: rename it", path=path)
        members = []
        for line, text in enumerate(_read_lines(path), start=1):
            item = _parse(text, path=path, line=line)
            _check_names(item, pack=pack, path=path, line=line)
            _check_forms(item, pack=pack, forms=forms, path=path, line=line)
            key = normalise(item.question)
            place = first_place.setdefault(key, f"{path.name}:{line}")
            if place != f"{path.name}:{line}":
                message = f"{item.question!r} stands in {place} already; remove one of the two"
                raise DataError(message, path=path, line=line)
            members.append(item)
        if not members:
            raise DataError("holds no questions; remove it or add some", path=path)
        found[path.stem] = tuple(members)
    return found


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path) from None
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: {error}", path=path) from None


def _parse(text: str, *, path: Path, line: int) -> WrittenQuestion:
    try:
        return WrittenQuestion.model_validate(json.loads(text))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the line"
        raise DataError(f"{where}: {fault['msg']}", path=path, line=line) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}", path=path, line=line) from None


def _check_names(item: WrittenQuestion, *, pack: Pack, path: Path, line: int) -> None:
    """Refuse what names something that the pack does not hold."""
    relations = pack.description.relations
    wanted: list[tuple[str, str, Mapping[str, object]]] = [
        *(("subject", name, pack.subjects) for name in (item.subject,) if name),
        *(("relation", name, relations) for name in item.relations),
        *(("specialty", name, pack.description.specialties) for name in (item.specialty,) if name),
    ]
    for what, name, known in wanted:
        if name not in known:
            message = str(UnknownNameError(name, known=known, what=what))
            raise DataError(message, path=path, line=line)
    for relation in item.relations:
        if not pack.items(item.subject, relation):
            message = f"the pack holds no {relation} of {item.subject!r}: ask for another relation"
            raise DataError(message, path=path, line=line)


def _check_forms(
    item: WrittenQuestion, *, pack: Pack, forms: Sequence["_Form"], path: Path, line: int
) -> None:
    """Refuse a question that nearly equals a training form about a subject that it names."""
    names = [name for name in pack.subjects if name == item.subject or name in item.question]
    if not names:
        return
    asked, near = character_pairs(item.question), NearIndex([item.question])
    in_form = [len(form.pairs & asked) for form in forms]
    for name in names:
        least = MIN_SIMILARITY_RATIO * len(asked) - len(character_pairs(name) & asked)
        for form, num_shared in zip(forms, in_form, strict=True):
            # Two pairs more where the name meets the form's parts.
            if num_shared + 2 + NUM_CHANGED_PAIRS < least or not form.may_equal(asked, name=name):
                continue
            filled = form.text.format(subject=name)
            if near.find(filled) is not None:
                raise DataError(
                    f"{item.question!r} nearly equals the training form {filled!r}: write another",
                    path=path,
                    line=line,
                )


@dataclass(frozen=True)
class _Form:
    """A training form, with what its two parts become in a comparison."""

    text: str
    parts: tuple[str, str]
    pairs: frozenset[str]
    """Of neighbouring characters, whatever fills it."""

    def may_equal(self, asked: frozenset[str], *, name: str) -> bool:
        """False where it cannot nearly equal a question of these pairs when this name fills it.

        Most are decided without normalising the filled text, which takes longest.
        """
        first, last = self.parts
        filling = normalise(name)
        pairs = self.pairs | {*_pairs(first[-1:] + filling), *_pairs(filling + last[:1])}
        shared = len(pairs & asked) + NUM_CHANGED_PAIRS
        whole = len(pairs) - NUM_CHANGED_PAIRS + len(asked) - shared
        return shared >= MIN_SIMILARITY_RATIO * whole


def _pairs(text: str) -> Iterator[str]:
    return (text[place : place + 2] for place in range(len(text) - 1))


def _read_forms(pack: Pack) -> list[_Form]:
    found: list[_Form] = []
    for key in pack.description.relations:
        for text in pack.forms[key].train:
            first, last = map(normalise, text.split("{subject}"))
            found.append(_Form(text, (first, last), frozenset((*_pairs(first), *_pairs(last)))))
    return found


def written_questions(pack: Pack, *, count: int, source: str, seed: int) -> Iterator[Question]:
    """At most so many questions of each task, drawn evenly over specialties.

    The expected answer of a question for several facts is the union of their items, as a list. The
    question counts together with others about the first of its facts.
    """
    for task, members in pack.written.items():
        made = [
            _make_question(item, pack=pack, task=task, id=f"{source}:{task}:{line}", seed=seed)
            for line, item in enumerate(members, start=1)
        ]
        yield from take_evenly(made, count=count, seed=f"{seed}:{task} order")


def _make_question(item: WrittenQuestion, *, pack: Pack, task: str, id: str, seed: int) -> Question:
    description = pack.description
    if item.specialty:
        return Question(
            id=id,
            task=task,
            question=item.question,
            answers=(description.specialty_name(item.specialty),),
            form="single",
            options=tuple(map(description.specialty_name, description.specialties)),
            specialty=item.specialty,
            group=id,
            is_written=True,
        )
    specialty = pack.specialty_of[item.subject]
    facts = [
        Fact(item.subject, relation, pack.items(item.subject, relation), specialty)
        for relation in item.relations
    ]
    is_list = len(facts) > 1 or description.relations[item.relations[0]].answer == "list"
    return Question(
        id=id,
        task=task,
        question=item.question,
        answers=tuple(dict.fromkeys(text for fact in facts for text in fact.items)),
        form="list" if is_list else "single",
        specialty=specialty,
        group=fact_group(facts[0], pack=pack, seed=seed),
        is_written=True,
    )
