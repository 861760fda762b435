"""The pack's own facts: questions and answers, statements, classifications, and refusals.

A set of items that a classification question of the evaluation names is never trained on, in any
phrasing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from typing_extensions import override

from limbeck.contracts.config import Config as BaseConfig
from limbeck.contracts.fields import NonNegativeInt, PositiveInt, Ratio, RatioBelowOne
from limbeck.contracts.records import Note, Question, Record
from limbeck.data.packs.fact_questions import (
    REFUSAL,
    Fact,
    FactsConfig,
    FactSplit,
    choice_questions,
    draw,
    fact_records,
    recall_questions,
    take_evenly,
)
from limbeck.data.packs.rejected_answers import add_rejected
from limbeck.data.packs.schema import Pack
from limbeck.data.packs.written_questions import written_questions
from limbeck.data.readers.base import ReaderConfig, ReaderItem

END_MARKS = "？?。.！!"


class ClassificationConfig(BaseConfig):
    """How many records and questions each classification of the pack makes."""

    train_sets: NonNegativeInt = 8
    """Sets of items of each subject that are trained on."""
    forms_per_set: PositiveInt = 1
    """Training forms of each such set."""
    questions: NonNegativeInt = 400
    """Most evaluation questions; their sets are never trained on."""
    held_out_sets: NonNegativeInt = 2
    """Sets of items of each subject kept for evaluation."""


class Config(ReaderConfig):
    """Facts of the corpus's pack."""

    kind: Literal["knowledge"] = "knowledge"
    split: FactSplit = "sft"
    """`sft`: the training forms, sets of items and unknown names that fine-tuning reads; `rl`:
    others, for reinforcement learning. Both splits need the same settings and the same seed."""
    preferences: Literal["none", "plausible"] = "none"
    """Whether questions also hold a worse answer: another subject's items, or a wrong refusal."""
    facts: FactsConfig = FactsConfig()
    classification: ClassificationConfig = ClassificationConfig()
    refusals: NonNegativeInt = 6
    """Training questions about each name that the pack has no facts about."""
    rl_unknown_ratio: RatioBelowOne = 0.0
    """Share of those names that only the split `rl` asks about."""
    refusal_questions: NonNegativeInt = 60
    """Most evaluation questions about other such names."""
    unmarked_ratio: Ratio = 0.0
    """Share of the training questions that lose the mark at their end, as people type them."""
    written_questions: NonNegativeInt = 1000
    """Most evaluation questions of each task that the pack holds as people wrote them."""

    @property
    @override
    def domain_need(self) -> str:
        return "a source of facts"

    @property
    @override
    def default_name(self) -> str:
        return "knowledge"

    @override
    def read(self, *, pack: Pack, seed: int) -> Iterator[ReaderItem]:
        facts = list(pack_facts(pack))
        yield Note("facts", len(facts))
        yield Note("subjects", len(pack.subjects))
        items = self._as_typed(self._items(facts, pack=pack, seed=seed), seed=seed)
        if self.preferences == "plausible":
            items = add_rejected(items, facts=facts, pack=pack, seed=seed)
        yield from items

    def _as_typed(
        self, items: Iterator[Record | Question], *, seed: int
    ) -> Iterator[Record | Question]:
        """The items, some training questions without the mark at their end."""
        for item in items:
            if isinstance(item, Record) and item.question:
                unmarked = draw(seed, "unmarked", item.id).random() < self.unmarked_ratio
                if unmarked:
                    item = replace(item, question=item.question.rstrip(END_MARKS))
            yield item

    def _items(
        self, facts: Sequence[Fact], *, pack: Pack, seed: int
    ) -> Iterator[Record | Question]:
        yield from fact_records(
            facts, pack=pack, config=self.facts, source=self.label, seed=seed, split=self.split
        )
        yield from recall_questions(
            facts, pack=pack, count=self.facts.recall_questions, source=self.label, seed=seed
        )
        yield from choice_questions(
            facts, pack=pack, count=self.facts.choice_questions, source=self.label, seed=seed
        )
        for task in pack.description.classifications:
            yield from self._classification(task, pack=pack, seed=seed)
        yield from self._refusals(pack, seed=seed)
        yield from written_questions(
            pack, count=self.written_questions, source=self.label, seed=seed
        )

    def _classification(self, task: str, *, pack: Pack, seed: int) -> Iterator[Record | Question]:
        questions: list[Question] = []
        forms = pack.forms[task]
        held_out = self.classification.held_out_sets
        for case in classification_cases(task, pack=pack, held_out=held_out, seed=seed):
            answer = pack.description.specialty_name(case.specialty)
            for index, items in enumerate(self._pick_sets(case)):
                chooser = draw(seed, task, case.subject, index)
                text = pack.description.joiner.join(chooser.sample(items, len(items)))
                group = classification_group(task, items)
                count = min(self.classification.forms_per_set, len(forms.train))
                for form in sorted(chooser.sample(range(len(forms.train)), count)):
                    yield Record(
                        id=f"{self.label}:{group}:{form}",
                        answer=answer,
                        group=group,
                        question=forms.train[form].format(items=text),
                        source=self.label,
                        specialty=case.specialty,
                    )
            for index, items in enumerate(case.evaluation):
                chooser = draw(seed, f"{task} question", case.subject, index)
                text = pack.description.joiner.join(chooser.sample(items, len(items)))
                group = classification_group(task, items)
                questions.append(
                    Question(
                        id=f"{self.label}:{group}",
                        task=pack.description.task_of(task),
                        answers=(answer,),
                        question=chooser.choice(forms.evaluation).format(items=text),
                        form="single",
                        specialty=case.specialty,
                        group=group,
                        options=tuple(
                            map(pack.description.specialty_name, pack.description.specialties)
                        ),
                    )
                )
        yield from take_evenly(
            questions, count=self.classification.questions, seed=f"{seed}:{task} order"
        )

    def _pick_sets(self, case: "ClassificationCase") -> tuple[tuple[str, ...], ...]:
        count = self.classification.train_sets
        if self.split == "sft":
            return case.train[:count]
        return case.train[count:][: self.facts.rl_forms]

    def _pick_unknown(self, names: Sequence[str], *, seed: int) -> list[str]:
        """The names of this split, in their own order."""
        num_rl = round(len(names) * self.rl_unknown_ratio)
        only_rl = set(draw(seed, "practised unknown").sample(list(names), num_rl))
        return [name for name in names if (name in only_rl) == (self.split == "rl")]

    def _refusals(self, pack: Pack, *, seed: int) -> Iterator[Record | Question]:
        description = pack.description
        relations = [key for key, item in description.relations.items() if item.attributes]
        for name in self._pick_unknown(description.unknown.train, seed=seed):
            forms = [
                (key, index) for key in relations for index in range(len(pack.forms[key].train))
            ]
            chosen = draw(seed, "refusal", name).sample(forms, min(self.refusals, len(forms)))
            for key, index in sorted(chosen):
                group = f"{name}|{key}|{index}"
                yield Record(
                    id=f"{self.label}:{group}",
                    answer=description.unknown_answer,
                    group=group,
                    question=pack.forms[key].train[index].format(subject=name),
                    source=self.label,
                )
        asked = [(name, key) for name in description.unknown.evaluation for key in relations]
        chooser = draw(seed, "refusal questions")
        for name, key in chooser.sample(asked, min(self.refusal_questions, len(asked))):
            forms = pack.forms[key].evaluation
            index = chooser.randrange(len(forms))
            group = f"{name}|{key}|evaluation {index}"
            yield Question(
                id=f"{self.label}:refusal:{group}",
                task=REFUSAL,
                form="single",
                group=group,
                question=forms[index].format(subject=name),
                answers=(description.unknown_answer.rstrip("。."),),
            )


def pack_facts(pack: Pack) -> Iterator[Fact]:
    """Every relation of every subject that the pack answers."""
    for subject, specialty in pack.specialty_of.items():
        for relation in pack.description.relations:
            if items := pack.items(subject, relation):
                yield Fact(subject, relation, items, specialty)


@dataclass(frozen=True)
class ClassificationCase:
    """The sets of items of one subject that point to its specialty alone."""

    subject: str
    specialty: str
    train: tuple[tuple[str, ...], ...]
    evaluation: tuple[tuple[str, ...], ...]


def classification_group(task: str, items: Sequence[str]) -> str:
    """The group of a set of items, whatever its order and phrasing."""
    return f"{task}|" + "|".join(sorted(items))


def classification_cases(
    task: str, *, pack: Pack, held_out: int, seed: int
) -> Iterator[ClassificationCase]:
    """Each subject's sets of items, split once and for all; a shared set belongs to the first.

    A set that a subject of another specialty has too points nowhere and is left out.
    """
    description = pack.description.classifications[task]
    sizes = description.set_sizes
    sets = {
        name: list(_subsets(subject.attributes.get(description.attribute, ()), sizes))
        for name, subject in pack.subjects.items()
    }
    specialties: dict[tuple[str, ...], set[str]] = {}
    for name in pack.subjects:
        for items in sets[name]:
            specialties.setdefault(items, set()).add(pack.specialty_of[name])
    taken: set[tuple[str, ...]] = set()
    for name in pack.subjects:
        own = [items for items in sets[name] if len(specialties[items]) == 1 and items not in taken]
        taken.update(own)
        shuffled = draw(seed, "sets", name).sample(own, len(own))
        yield ClassificationCase(
            subject=name,
            specialty=pack.specialty_of[name],
            evaluation=tuple(shuffled[:held_out]),
            train=tuple(shuffled[held_out:]),
        )


def _subsets(items: Sequence[str], sizes: Sequence[int]) -> Iterator[tuple[str, ...]]:
    for size in sizes:
        yield from combinations(sorted(set(items)), size)
