"""A corpus on disk: every path in its folder, and what reads and writes them.

Left out: tokens, which are read by way of `limbeck.data.loading`, and how a corpus is made.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from limbeck.contracts.answer_policy import Emergency
from limbeck.contracts.artifacts import write_atomically
from limbeck.contracts.errors import DataError
from limbeck.contracts.facts import FACTS_FILE, FactsFile
from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.contracts.records import (
    SPLITS,
    AnswerFormat,
    Question,
    Record,
    Split,
    read_jsonl,
    read_records,
    write_jsonl,
)
from limbeck.contracts.safety_rules import SafetyRules

IMAGES = "images"
Titles = Mapping[str, Mapping[str, Mapping[str, str | int]]]
"""Of `tasks` and of `specialties`: each name with its title by language."""


@dataclass(frozen=True)
class Domain:
    """What a corpus's card holds of its pack; empty where it has no pack or no card of its own."""

    headline_tasks: tuple[str, ...] = ()
    titles: Titles = field(default_factory=dict)
    disclaimer: Mapping[str, str] = field(default_factory=dict)
    emergencies: tuple[Emergency, ...] = ()
    safety: SafetyRules = field(default_factory=SafetyRules)


@final
class Corpus:
    """The folder of a corpus: `records/`, `questions/`, `images/`, `tokenizer/` and a card."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer_path = folder / "tokenizer"
        self.questions_path = folder / "questions"
        self.images_path = folder / IMAGES
        """There only where a record or a question has an image."""
        self.card_path = folder / "card.json"
        self.page_path = folder / "card.html"
        """The card for people."""
        self.dropped_path = folder / "dropped.jsonl"
        """Every record that was read and not used, with the reason."""

        self.facts_path = folder / FACTS_FILE
        """What a service may answer without a model; there only where the pack has wording."""
        self.unlabelled_path = folder / "records" / "unlabelled.jsonl"
        """Training questions without an answer; there only where it has some."""

    def records_path(self, split: Split) -> Path:
        """The file of a split, one record a line."""
        return self.folder / "records" / f"{split}.jsonl"

    def records(self, split: Split) -> Iterator[Record]:
        """The records of a split, in the order of their lines.

        Raises:
            DataError: the file is missing, or a line is not a record.
        """
        return read_records(self.records_path(split))

    def count_records(self) -> dict[Split, int]:
        """The number of records of each split."""
        return {split: sum(1 for _ in read_jsonl(self.records_path(split))) for split in SPLITS}

    def write_records(self, split: Split, records: Iterable[Record]) -> None:
        """Write a split's file."""
        self.records_path(split).parent.mkdir(exist_ok=True)
        write_jsonl(self.records_path(split), records)

    def unlabelled(self) -> Iterator[Record]:
        """The training questions without an answer; none in most corpora.

        Raises:
            DataError: a line is not a record.
        """
        if self.unlabelled_path.is_file():
            yield from read_records(self.unlabelled_path)

    def write_unlabelled(self, records: Sequence[Record]) -> None:
        """Write the questions without an answer; without any, no file is left."""
        self.unlabelled_path.unlink(missing_ok=True)
        if records:
            self.unlabelled_path.parent.mkdir(exist_ok=True)
            write_jsonl(self.unlabelled_path, records)

    def task_paths(self) -> list[Path]:
        """The files of questions, one a task, by its name."""
        return sorted(self.questions_path.glob("*.jsonl"))

    def questions(self) -> Iterator[Question]:
        """The questions of every task, in the order of their lines.

        Raises:
            DataError: a line is not a question that can be scored.
        """
        for path in self.task_paths():
            yield from read_task(path)

    def write_questions(self, questions: Sequence[Question]) -> None:
        """Write the questions, one file a task."""
        self.questions_path.mkdir(exist_ok=True)
        tasks: dict[str, list[Question]] = {}
        for question in questions:
            tasks.setdefault(question.task, []).append(question)
        for task, members in tasks.items():
            write_jsonl(self.questions_path / f"{task}.jsonl", members)

    def write_facts(self, facts: FactsFile) -> None:
        """Write the facts of the pack."""
        write_atomically(self.facts_path, facts.model_dump_json(indent=1) + "\n")

    def domain(self) -> Domain:
        """What the card holds of the pack.

        Raises:
            DataError: the corpus has a card that was not made by this version.
        """
        card = self._read_card() if self.card_path.is_file() else {}
        if not card.get("pack"):
            return Domain()
        try:
            titles = {"tasks": card["tasks"], "specialties": card["specialties"]}
            emergencies = tuple(map(Emergency.model_validate, card.get("emergencies", ())))
            safety = SafetyRules.model_validate(card.get("safety", {}))
            headline = tuple(card["headline_tasks"])
            return Domain(headline, titles, card["disclaimer"], emergencies, safety)
        except (KeyError, TypeError, ValueError) as error:
            raise self._stale(error) from None

    def states_template(self) -> bool:
        """Whether its recipe states the chat template by which models read it."""
        if not self.card_path.is_file():
            return False
        tokenizer = self._read_card().get("tokenizer")
        return isinstance(tokenizer, dict) and bool(tokenizer.get("template_stated"))

    def answer_format(self) -> AnswerFormat:
        """How the domain joins items, and answers what it does not know; nothing without a pack.

        Raises:
            DataError: the corpus has no card that holds it.
        """
        try:
            found = self._read_card()["answer_format"]
            return AnswerFormat(joiner=found["joiner"], unknown_answer=found["unknown_answer"])
        except (KeyError, TypeError) as error:
            raise self._stale(error) from None

    def write_card(self, card: JsonMapping) -> None:
        """Write the card as data."""
        text = json.dumps(card, ensure_ascii=False, indent=2, sort_keys=True)
        write_atomically(self.card_path, text + "\n")

    def add_to_card(self, name: str, value: JsonMapping) -> None:
        """Set one key of the card; a corpus without a card gets one.

        Raises:
            DataError: the card cannot be read.
        """
        card = self._read_card() if self.card_path.is_file() else {}
        self.write_card(card | {name: value})

    def _read_card(self) -> JsonObject:
        try:
            card = json.loads(self.card_path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._stale(error) from None
        if not isinstance(card, dict):
            raise self._stale(TypeError(f"{type(card).__name__}, expected an object"))
        return card

    def _stale(self, error: Exception) -> DataError:
        return DataError(
            f"does not describe the corpus's domain ({error!r}); make the corpus again with "
            "`limbeck run`",
            path=self.card_path,
        )


def read_task(path: Path) -> Iterator[Question]:
    """The questions of a task's file.

    Raises:
        DataError: a line is not a question that can be scored.
    """
    for line, value in enumerate(read_jsonl(path), start=1):
        try:
            question = Question.from_json(value)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"not a question ({error!r}); make the corpus again", path=path, line=line
            ) from None
        if fault := _find_fault(question, task=path.stem):
            raise DataError(fault, path=path, line=line)
        yield question


def _find_fault(question: Question, *, task: str) -> str:
    """Why a question of a task's file cannot be scored; empty where it can."""
    if question.task != task:
        return f"task {question.task!r} in the file of {task!r}; make the corpus again"
    if not question.answers or question.form not in ("single", "list", "choice"):
        return f"form {question.form!r} with answers {question.answers!r} cannot be scored"
    if question.form == "choice" and not set(question.answers) <= set(question.options):
        return f"the right answer {question.answers!r} is not among {question.options!r}"
    return ""
