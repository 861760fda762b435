"""The small records that data, training and evaluation pass to each other."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""Training data, data that guides choices, and data that only measures."""
UNSCORED = -1.0
"""The confidence of a record whose source gives none."""


@dataclass(frozen=True)
class Entity:
    """A marked mention: `text` stands at `start` of the question or of the answer."""

    text: str
    type: str
    start: int
    part: Literal["question", "answer"]


@dataclass(frozen=True)
class Record:
    """One thing to learn from: a question with its answer, or plain text when `question` is ''.

    Without an answer it is a question that a teacher is to answer.
    """

    id: str
    question: str
    answer: str
    group: str
    """Records of one group never stand in two splits."""
    source: str
    specialty: str = ""
    confidence: float = 1.0
    history: tuple[str, ...] = ()
    """Earlier turns of the conversation: user, assistant, user, assistant."""
    entities: tuple[Entity, ...] = ()
    images: tuple[str, ...] = ()
    """What the question is about: files in the corpus's folder."""
    place: str = ""
    """Where it was read: file and line."""
    rejected: str = ""
    """A worse answer, where preferences are to be learnt."""
    system: str = ""
    """The instructions that stand before the conversation."""
    answer_form: Literal["single", "list"] = "single"
    """`list` where the source knows that the answer is a list; commas alone tell nothing."""

    @classmethod
    def from_json(cls, value: JsonObject) -> "Record":
        """The record that `dataclasses.asdict` wrote.

        Raises:
            TypeError: a key is missing, unknown, or holds a value of another type.
        """
        _expect_texts(value, *RECORD_TEXTS)
        value = dict(value)
        value["history"] = _read_texts(value, "history")
        value["images"] = _read_texts(value, "images")
        value["entities"] = tuple(Entity(**item) for item in value.get("entities", ()))
        return cls(**value)


@dataclass(frozen=True)
class Question:
    """One thing to be asked in an evaluation, with every answer that counts as right."""

    id: str
    task: str
    question: str
    answers: tuple[str, ...]
    """One item for a single answer; the items of a list answer."""
    form: Literal["single", "list", "choice"]
    options: tuple[str, ...] = ()
    """For `choice`: the possible answers, the right one among them."""
    specialty: str = ""
    group: str = ""
    """What is asked, without its phrasing: the leak check compares groups where it must."""
    images: tuple[str, ...] = ()
    """What the question is about: files in the corpus's folder."""
    history: tuple[str, ...] = ()
    """Earlier turns of the conversation, as in `Record.history`."""
    system: str = ""
    """The instructions that stand before the conversation."""
    language: str = ""
    """Of the answers (ISO 639-1), where it is known: it says how their numbers are written."""
    is_written: bool = False
    """Whether a person wrote it for evaluation: then no training record may nearly equal it."""

    @classmethod
    def from_json(cls, value: JsonObject) -> "Question":
        """The question that `dataclasses.asdict` wrote.

        Raises:
            TypeError: a key is missing, unknown, or holds a value of another type.
        """
        _expect_texts(value, *QUESTION_TEXTS)
        value = dict(value)
        value["answers"] = _read_texts(value, "answers")
        value["options"] = _read_texts(value, "options")
        value["history"] = _read_texts(value, "history")
        value["images"] = _read_texts(value, "images")
        return cls(**value)


@dataclass(frozen=True)
class AnswerFormat:
    """How a domain writes its answers."""

    joiner: str
    """Stands between the items of a list."""
    unknown_answer: str
    """Admits that the answer is not known."""


@dataclass(frozen=True)
class Source:
    """What filters read about the place that records come from."""

    label: str
    """As in `Record.source`."""
    free_text: bool
    """Whether people wrote the answers freely."""
    max_records: int


@dataclass(frozen=True)
class Reason:
    """Why a record was dropped or changed: the key that is counted, and its text for people."""

    key: str
    zh: str
    en: str
    counts_as: Literal["fault", "choice", "surplus"] = "fault"
    """What it says about a source: a fault of its data, the recipe's choice among good records, or
    that nothing was to be had from it: a repetition, a row that the recipe leaves out."""

    def in_evaluation_file(self) -> "Reason":
        """The same reason, where it concerns a question instead of a record."""
        key, zh, en = f"evaluation_{self.key}", f"评测：{self.zh}", f"evaluation: {self.en}"
        return dataclasses.replace(self, key=key, zh=zh, en=en)


@dataclass(frozen=True)
class Drop:
    """One thing that was read and not used: why, and where it stands."""

    reason: Reason
    source: str
    place: str
    detail: str = ""


@dataclass(frozen=True)
class Change:
    """What one rule did to the texts of one record: why, where it stands, and one text of them."""

    reason: Reason
    source: str
    place: str
    before: str
    after: str


@dataclass(frozen=True)
class Note:
    """Something about a source that the data card shows, such as its encoding."""

    name: str
    value: object


RECORD_TEXTS = (
    "rejected",
    "system",
    "id",
    "question",
    "answer",
    "group",
    "source",
    "specialty",
    "place",
    "answer_form",
)
QUESTION_TEXTS = ("language", "system", "id", "task", "question", "form", "specialty", "group")


def _expect_texts(value: JsonObject, *names: str) -> None:
    for name in names:
        if not isinstance(value.get(name, ""), str):
            raise TypeError(f"{name!r} is {value[name]!r}, expected text")


def _read_texts(value: JsonObject, name: str) -> tuple[str, ...]:
    found = value.get(name, ())
    if not isinstance(found, list | tuple) or not all(isinstance(item, str) for item in found):
        raise TypeError(f"{name!r} is {found!r}, expected a list of texts")
    return tuple(found)


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file that `write_jsonl` wrote.

    Raises:
        DataError: the file is missing, or a line is not a record.
    """
    for number, value in enumerate(read_jsonl(path), start=1):
        try:
            yield Record.from_json(value)
        except TypeError as error:
            raise DataError(
                f"not a record ({error}); make the corpus again", path=path, line=number
            ) from None


def write_jsonl(path: Path, items: Iterable[object]) -> int:
    """The number of dataclass items or mappings written, one JSON object a line."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for item in items:
            # `dataclasses.asdict` would copy every text of every record first.
            line = json.dumps(item, ensure_ascii=False, sort_keys=True, default=vars)
            file.write(line + "\n")
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[JsonObject]:
    """The objects of a file that `write_jsonl` wrote.

    Raises:
        DataError: the file is missing, or a line is not a JSON object.
    """
    if not path.is_file():
        raise DataError("file is missing: make the corpus again with `limbeck run`", path=path)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                value = json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                raise DataError(f"not JSON: {error}", path=path, line=number) from None
            if not isinstance(value, dict):
                raise DataError(
                    f"expected a JSON object, found {line.decode()[:60]!r}", path=path, line=number
                )
            yield value
