"""The pack's own facts: questions and answers, statements, triage, and what it does not know.

A set of symptoms that evaluation asks about is never trained on, in any phrasing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated, Literal

from pydantic import Field

from limbeck.contracts.records import Note, Question, Record
from limbeck.data.loading.preference_pairs import add_rejected
from limbeck.data.packs.fact_questions import (
    Fact,
    FactsConfig,
    Side,
    choice_questions,
    draw,
    fact_records,
    recall_questions,
)
from limbeck.data.packs.schema import Pack
from limbeck.data.readers.base import Item, ReaderConfig

SET_SIZES = (2, 3, 4)


class Config(ReaderConfig):
    """Facts of the corpus's pack."""

    kind: Literal["knowledge"] = "knowledge"
    side: Side = "taught"
    """`taught`: the training forms, symptom sets and unknown names that fine-tuning reads;
    `practised`: others, for reinforcement. Both sides need the same settings and the same seed."""
    preferences: Literal["none", "plausible"] = "none"
    """Whether questions also hold a worse answer: another subject's items, or a wrong refusal."""
    facts: FactsConfig = FactsConfig()
    triage_sets: Annotated[int, Field(ge=0)] = 8
    """Symptom sets of each disease that are trained on."""
    triage_forms: Annotated[int, Field(ge=1)] = 1
    """Training forms of each such set."""
    triage_questions: Annotated[int, Field(ge=0)] = 400
    """Most triage questions; their symptom sets are never trained on."""
    triage_sets_held_out: Annotated[int, Field(ge=0)] = 2
    """Symptom sets of each disease kept for evaluation."""
    refusals: Annotated[int, Field(ge=0)] = 6
    """Training questions about each name that the pack knows nothing about."""
    practised_unknown_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of those names that only the practised side asks about."""
    refusal_questions: Annotated[int, Field(ge=0)] = 60
    """Most evaluation questions about other such names."""

    @property
    def label(self) -> str:
        """The name given, or `knowledge`."""
        return self.name or "knowledge"

    def read(self, *, pack: Pack, seed: int) -> Iterator[Item]:
        """Records, then evaluation questions."""
        facts = list(pack_facts(pack))
        yield Note("facts", len(facts))
        yield Note("diseases", len(pack.diseases))
        items = self._items(facts, pack=pack, seed=seed)
        if self.preferences == "plausible":
            items = add_rejected(items, facts=facts, pack=pack, seed=seed)
        yield from items

    def _items(
        self, facts: Sequence[Fact], *, pack: Pack, seed: int
    ) -> Iterator[Record | Question]:
        yield from fact_records(
            facts, pack=pack, config=self.facts, source=self.label, seed=seed, side=self.side
        )
        yield from recall_questions(
            facts, pack=pack, count=self.facts.recall_questions, source=self.label, seed=seed
        )
        yield from choice_questions(
            facts, pack=pack, count=self.facts.choice_questions, source=self.label, seed=seed
        )
        yield from self._triage(pack, seed=seed)
        yield from self._refusals(pack, seed=seed)

    def _triage(self, pack: Pack, *, seed: int) -> Iterator[Record | Question]:
        questions: list[Question] = []
        forms = pack.forms["triage"]
        for case in triage_cases(pack, held_out=self.triage_sets_held_out, seed=seed):
            answer = pack.description.specialties[case.specialty].zh
            for index, symptoms in enumerate(self._pick_sets(case)):
                chooser = draw(seed, "triage", case.disease, index)
                text = pack.description.joiner.join(chooser.sample(symptoms, len(symptoms)))
                group = triage_group(symptoms)
                count = min(self.triage_forms, len(forms.train))
                for form in sorted(chooser.sample(range(len(forms.train)), count)):
                    yield Record(
                        id=f"{self.label}:{group}:{form}",
                        answer=answer,
                        group=group,
                        question=forms.train[form].format(symptoms=text),
                        source=self.label,
                        specialty=case.specialty,
                    )
            for index, symptoms in enumerate(case.evaluation):
                chooser = draw(seed, "triage question", case.disease, index)
                text = pack.description.joiner.join(chooser.sample(symptoms, len(symptoms)))
                group = triage_group(symptoms)
                questions.append(
                    Question(
                        id=f"{self.label}:{group}",
                        task="triage",
                        answers=(answer,),
                        question=chooser.choice(forms.evaluation).format(symptoms=text),
                        form="single",
                        specialty=case.specialty,
                        group=group,
                        options=tuple(item.zh for item in pack.description.specialties.values()),
                    )
                )
        yield from _evenly_by_specialty(questions, count=self.triage_questions, seed=seed)

    def _pick_sets(self, case: "TriageCase") -> tuple[tuple[str, ...], ...]:
        if self.side == "taught":
            return case.train[: self.triage_sets]
        return case.train[self.triage_sets :][: self.facts.practised_forms]

    def _pick_unknown(self, names: Sequence[str], *, seed: int) -> list[str]:
        """The names of this side, in their own order."""
        num_practised = round(len(names) * self.practised_unknown_ratio)
        practised = set(draw(seed, "practised unknown").sample(list(names), num_practised))
        return [name for name in names if (name in practised) == (self.side == "practised")]

    def _refusals(self, pack: Pack, *, seed: int) -> Iterator[Record | Question]:
        description = pack.description
        relations = [key for key, item in description.relations.items() if item.fields]
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
                    question=pack.forms[key].train[index].format(disease=name),
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
                task="refusal",
                form="single",
                group=group,
                question=forms[index].format(disease=name),
                answers=(description.unknown_answer.rstrip("。"),),
            )


def pack_facts(pack: Pack) -> Iterator[Fact]:
    """Every relation of every disease that the pack answers."""
    for disease, specialty in pack.specialty_of.items():
        for relation in pack.description.relations:
            if items := pack.items(disease, relation):
                yield Fact(disease, relation, items, specialty)


@dataclass(frozen=True)
class TriageCase:
    """The symptom sets of one disease that point to its specialty alone."""

    disease: str
    specialty: str
    train: tuple[tuple[str, ...], ...]
    evaluation: tuple[tuple[str, ...], ...]


def triage_group(symptoms: Sequence[str]) -> str:
    """The group of a symptom set, whatever its order and phrasing."""
    return "triage|" + "|".join(sorted(symptoms))


def triage_cases(pack: Pack, *, held_out: int, seed: int) -> Iterator[TriageCase]:
    """Each disease's symptom sets, split once and for all; a shared set belongs to the first.

    A set that a disease of another specialty has too points nowhere and is left out.
    """
    claims: dict[tuple[str, ...], set[str]] = {}
    for disease in pack.diseases.values():
        for symptoms in _subsets(disease.symptoms):
            claims.setdefault(symptoms, set()).add(pack.specialty_of[disease.name])
    taken: set[tuple[str, ...]] = set()
    for disease in pack.diseases.values():
        own = [
            symptoms
            for symptoms in _subsets(disease.symptoms)
            if len(claims[symptoms]) == 1 and symptoms not in taken
        ]
        taken.update(own)
        shuffled = draw(seed, "sets", disease.name).sample(own, len(own))
        yield TriageCase(
            disease=disease.name,
            specialty=pack.specialty_of[disease.name],
            evaluation=tuple(shuffled[:held_out]),
            train=tuple(shuffled[held_out:]),
        )


def _subsets(symptoms: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for size in SET_SIZES:
        yield from combinations(sorted(set(symptoms)), size)


def _evenly_by_specialty(
    questions: Sequence[Question], *, count: int, seed: int
) -> Iterator[Question]:
    cells: dict[str, list[Question]] = {}
    for question in questions:
        cells.setdefault(question.specialty, []).append(question)
    chooser = draw(seed, "triage order")
    shuffled = [chooser.sample(cell, len(cell)) for cell in cells.values()]
    made = 0
    for depth in range(max(map(len, shuffled), default=0)):
        for cell in shuffled:
            if depth < len(cell) and made < count:
                made += 1
                yield cell[depth]
