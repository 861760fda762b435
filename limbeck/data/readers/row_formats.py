"""From one row of a file to records: named columns, Alpaca and ShareGPT shapes.

A row that fits none is a drop with its place.
"""

import abc
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field
from typing_extensions import override

from limbeck.contracts.config import Config
from limbeck.contracts.errors import DataError
from limbeck.contracts.fields import PositiveInt
from limbeck.contracts.json_data import JsonMapping
from limbeck.contracts.leaks import normalise
from limbeck.contracts.records import UNSCORED, Drop, Note, Reason, Record
from limbeck.data.packs.schema import Pack
from limbeck.data.readers.base import SHOWN_CHARS, Item, ReaderConfig

USERS = {"human", "user", "question", "patient"}
ASSISTANTS = {"gpt", "assistant", "chatgpt", "bing", "bard", "doctor", "model"}
FILTERED = Reason("filtered", "按列筛除", "filtered by column")
TOO_MANY_ANSWERS = Reason("too_many_answers", "答案过多（标注可疑）", "too many answers")
MISSING_FIELD = Reason("missing_field", "缺少字段", "missing field")
BROKEN_CONVERSATION = Reason("broken_conversation", "对话损坏", "broken conversation")
WRONG_TYPE = Reason("wrong_type", "类型错误", "wrong type")
IMAGES_NOT_READ = Reason("images_not_read", "未读取图像", "images not read")
IMAGE_OUTSIDE = Reason("image_outside", "图像在文件夹外", "image outside the folder")
BAD_CONFIDENCE = Reason("bad_confidence", "置信度无效", "invalid confidence")


class Columns(Config):
    """Which columns hold what; a row in a known shape needs none of them."""

    question: Annotated[tuple[str, ...], Field(min_length=1)] = ("question",)
    """One column, or several whose texts are joined."""
    answer: str = "answer"
    department: str = "department"
    """The specialty in the source's own words; the column may be absent."""
    rejected: str = "rejected"
    """A worse answer, where preferences are to be learnt; the column may be absent."""
    confidence: str = "confidence"
    """A number between 0 and 1, or a percentage; the column may be absent."""
    images: str = "images"
    """Paths of the images that the question is about, one or a list; the column may be absent."""


@dataclass(frozen=True)
class Row:
    """One row of a file: its place, and its values by column."""

    place: str
    values: JsonMapping


class RowReaderConfig(ReaderConfig):
    """Base of the readers of one question and answer, or one conversation, a row."""

    free_text: ClassVar[bool] = True

    columns: Columns = Columns()
    where: Mapping[str, str] = {}
    """Columns and the values they must have; other rows are dropped as `filtered`."""
    max_answers: PositiveInt = 1_000_000
    """A question with more answers than this is taken for mislabelled: all of them are dropped."""
    image_folder: str = ""
    """Where the images lie that rows name; without it a row that names one is dropped."""

    @override
    def external_paths(self) -> Iterator[Path]:
        yield from super().external_paths()
        if self.image_folder:
            yield Path(self.image_folder)

    @abc.abstractmethod
    def rows(self) -> Iterator[Row | Drop | Note]:
        """The rows as they stand, a drop for each that cannot be read."""

    @override
    def read(self, *, pack: Pack, seed: int) -> Iterator[Item]:
        records: dict[str, list[Record]] = {}
        first: Drop | None = None
        filtered = False
        for row in self.rows():
            if isinstance(row, Note):
                yield row
                continue
            items = [row] if isinstance(row, Drop) else self._convert(row, pack=pack)
            for item in items:
                if isinstance(item, Record):
                    records.setdefault(item.group, []).append(item)
                    continue
                filtered = filtered or item.reason == FILTERED
                first = first or item
                yield item
        if not records and not filtered:
            place = next(self.external_paths(), self.label)
            raise DataError(_explain_nothing(first), path=place)
        for group in records.values():
            for record in group:
                if len(group) <= self.max_answers:
                    yield record
                else:
                    yield Drop(
                        reason=TOO_MANY_ANSWERS,
                        source=self.label,
                        place=record.place,
                        detail=f"{len(group)} answers to {record.question[:SHOWN_CHARS]!r}",
                    )

    def _convert(self, row: Row, *, pack: Pack) -> list[Record | Drop]:
        wrong = [key for key, value in self.where.items() if str(row.values.get(key)) != value]
        if wrong:
            detail = f"{wrong[0]}={row.values.get(wrong[0])!r}"
            return [Drop(FILTERED, self.label, row.place, detail)]
        try:
            turns = _find_turns(row.values, self.columns)
            confidence = _read_confidence(row.values.get(self.columns.confidence))
            rejected = _text(row.values, self.columns.rejected)
            images = _find_images(row.values.get(self.columns.images), folder=self.image_folder)
        except ShapeError as error:
            return [Drop(error.reason, self.label, row.place, error.detail[:SHOWN_CHARS])]
        specialty = pack.find_specialty(str(row.values.get(self.columns.department) or ""))
        texts: list[str] = []
        records: list[Record | Drop] = []
        for index, (question, answer) in enumerate(turns):
            records.append(
                Record(
                    id=f"{self.label}:{row.place}" + (f"/{index}" if index else ""),
                    question=question,
                    answer=answer,
                    group="+".join(images) or normalise(turns[0][0]),
                    source=self.label,
                    specialty=specialty,
                    confidence=confidence,
                    history=tuple(texts),
                    images=images,
                    place=row.place,
                    rejected=rejected if index == len(turns) - 1 else "",
                )
            )
            texts += [question, answer]
        return records


class ShapeError(Exception):
    """A row that cannot become a record: why. Never leaves this module."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason.key)
        self.reason = reason
        self.detail = detail


def _explain_nothing(first: Drop | None) -> str:
    if first is None:
        return "holds no rows"
    return (
        f"holds no usable row; the first at {first.place}: {first.reason.key} ({first.detail}); "
        "check the source's kind and its columns"
    )


def _find_turns(values: JsonMapping, columns: Columns) -> list[tuple[str, str]]:
    """The questions and answers of a row, in whichever shape it is."""
    for key in ("conversations", "messages"):
        if key in values:
            return _chat_turns(values[key], key=key)
    if "instruction" in values and "output" in values:
        return _alpaca_turns(values)
    question = " ".join(filter(None, (_text(values, name) for name in columns.question)))
    answer = _text(values, columns.answer)
    if not question or not answer:
        missing = columns.answer if question else " or ".join(columns.question)
        found = ", ".join(map(str, values)) or "nothing"
        raise ShapeError(MISSING_FIELD, f"nothing in {missing!r}; the row has {found}")
    return [(question, answer)]


def _alpaca_turns(values: JsonMapping) -> list[tuple[str, str]]:
    question = " ".join(filter(None, (_text(values, "instruction"), _text(values, "input"))))
    answer = _text(values, "output")
    if not question or not answer:
        raise ShapeError(MISSING_FIELD, "an empty 'instruction' or 'output'")
    history = values.get("history") or []
    if not isinstance(history, list):
        raise ShapeError(BROKEN_CONVERSATION, f"'history' is not a list: {history!r}")
    turns = [
        (str(pair[0]), str(pair[1]))
        for pair in history
        if isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
    ]
    if len(turns) != len(history):
        raise ShapeError(BROKEN_CONVERSATION, f"'history' is not pairs: {history!r}")
    return [*turns, (question, answer)]


def _chat_turns(messages: object, *, key: str) -> list[tuple[str, str]]:
    if isinstance(messages, str) or not isinstance(messages, Sequence) or not len(messages):
        raise ShapeError(BROKEN_CONVERSATION, f"{key!r} is not a list of messages")
    turns: list[tuple[str, str]] = []
    for message in messages:
        if not isinstance(message, Mapping):
            raise ShapeError(BROKEN_CONVERSATION, f"not a message: {message!r}")
        role = str(message.get("from", message.get("role", ""))).lower()
        text = message.get("value", message.get("content"))
        if role == "system":
            continue
        if not isinstance(text, str) or not text.strip() or role not in USERS | ASSISTANTS:
            raise ShapeError(BROKEN_CONVERSATION, f"no text or no known speaker: {message!r}")
        turns.append(("user" if role in USERS else "assistant", text))
    speakers = [speaker for speaker, _ in turns]
    if not turns or len(turns) % 2 or speakers != ["user", "assistant"] * (len(turns) // 2):
        raise ShapeError(BROKEN_CONVERSATION, f"turns do not alternate: {' '.join(speakers)}")
    return [
        (question, answer)
        for (_, question), (_, answer) in zip(turns[::2], turns[1::2], strict=True)
    ]


def _text(values: JsonMapping, name: str) -> str:
    value = values.get(name)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ShapeError(WRONG_TYPE, f"{name!r} is {type(value).__name__}, expected text")
    return str(value).strip()


def _find_images(value: object, *, folder: str) -> tuple[str, ...]:
    """The paths of a row's images, none of them outside the folder."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return ()
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ShapeError(WRONG_TYPE, f"images are {value!r}, expected paths")
    if names and not folder:
        raise ShapeError(IMAGES_NOT_READ, f"names {names[0]!r}; set image_folder on the source")
    root = Path(folder).resolve()
    paths = [(root / name).resolve() for name in names]
    outside = [name for name, path in zip(names, paths, strict=True) if root not in path.parents]
    if outside:
        raise ShapeError(IMAGE_OUTSIDE, f"{outside[0]!r} lies outside {folder}")
    return tuple(map(str, paths))


def _read_confidence(value: object) -> float:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return UNSCORED
    try:
        number = float(str(value).strip().rstrip("%"))
    except ValueError:
        raise ShapeError(BAD_CONFIDENCE, f"{value!r} is no number") from None
    number = number / 100 if 1 < number <= 100 else number
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ShapeError(BAD_CONFIDENCE, f"{value!r} lies outside 0 to 1")
    return number
