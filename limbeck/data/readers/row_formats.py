"""From the rows of a file to records.

A row that cannot be one is a drop with its place; a file none of whose rows can be one is an error
that says which columns were found, and what to set.
"""

import abc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from typing_extensions import override

from limbeck.contracts.errors import ColumnsError, DataError
from limbeck.contracts.fields import PositiveInt
from limbeck.contracts.json_data import Json
from limbeck.contracts.leaks import normalise
from limbeck.contracts.records import Drop, Note, Reason, Record, Split
from limbeck.data.filters.dedup import EQUAL_SIDES
from limbeck.data.packs.schema import Pack
from limbeck.data.readers.base import SHOWN_CHARS, ReaderConfig, ReaderItem
from limbeck.data.readers.column_names import (
    describe_mismatch,
    describe_wrapped,
    find_chats,
    nearest,
    quote,
)
from limbeck.data.readers.list_answers import as_list_answer, write_list_values
from limbeck.data.readers.messages import (
    NO_WEIGHT,
    ROW_WEIGHTS,
    Conversation,
    check_tools,
    read_weight,
)
from limbeck.data.readers.mojibake import MojibakeCount
from limbeck.data.readers.rejected_rows import (
    NOT_ACCEPTED,
    UNPAIRED,
    check_accepted,
    without_decision,
)
from limbeck.data.readers.row_images import take_images
from limbeck.data.readers.row_pairs import ALPACA_QUESTION, CHAT_KEYS
from limbeck.data.readers.row_shapes import Columns, read_row
from limbeck.data.readers.row_values import (
    MISSING_FIELD,
    PATH_SIGN,
    Row,
    RowError,
    add_paths,
    find_undecodable,
    path_names,
    read_confidence,
)
from limbeck.data.readers.text_files import UNDECODABLE
from limbeck.data.readers.unread_columns import unread_names

FILTERED = Reason("filtered", "按列筛除", "filtered by column", counts_as="surplus")
NOT_TRAINED = Reason("not_trained", "权重为零", "weight zero", counts_as="surplus")
TOO_MANY_ANSWERS = Reason("too_many_answers", "答案过多（标注可疑）", "too many answers")
ADVICE = {
    "broken_json": "write one JSON object a line, or all of them in one array",
    "broken_conversation": "write messages of a role and a content, an answer after each question",
    "not_an_object": 'write each row as an object, such as {"question": ..., "answer": ...}',
    UNPAIRED.key: "make pairs of `chosen` and `rejected`",
    "line_too_long": "write one row a line; a file without line ends was not written whole",
    "wrong_type": "write a text there, or name other columns",
}
"""What to do about a file none of whose rows can be used, by the reason of the first."""
MISSING_WORDS = frozenset(
    (
        *("nan", "NaN", "None", "null", "NULL", "<NA>", "#N/A"),
        *("#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NUM!"),
    )
)
"""What programs write into a table for a value that is not there; it may also be meant."""
OF_THE_KIND = (FILTERED, NOT_TRAINED, NOT_ACCEPTED, UNDECODABLE, EQUAL_SIDES)
"""Drops of rows in a right file: one that holds only such rows is counted, not refused."""


class RowReaderConfig(ReaderConfig):
    """Base of the readers of one question and answer, or one conversation, a row."""

    free_text: ClassVar[bool] = True

    columns: Columns = Columns()
    where: Mapping[str, str] = {}
    """Columns and the values they must have; other rows are dropped as `filtered`."""
    max_answers: PositiveInt = 1_000_000
    """A question with more answers than this is taken for mislabelled: all of them are dropped."""
    answers: Literal["text", "list"] = "text"
    """`list`: an answer is a list or an object, in JSON or of items between `item_separator`. It is
    learnt as JSON, and scored by its items."""
    item_separator: str = ""
    """Stands between the items of answers that are no JSON."""
    corpus_split: Literal["drawn", "validation", "test"] = "drawn"
    """Which split of the corpus its records are in. `drawn`: a share of them in each, by `splits`.
    `validation`, `test`: all of them; a record of another source that asks the same is dropped."""
    image_folder: str = ""
    """Where the images lie that rows name; without it a row that names one is dropped."""

    @override
    def external_paths(self) -> Iterator[Path]:
        yield from super().external_paths()
        if self.image_folder:
            yield Path(self.image_folder)

    @property
    @override
    def stated_split(self) -> Split | None:
        return None if self.corpus_split == "drawn" else self.corpus_split

    @abc.abstractmethod
    def rows(self) -> Iterator[Row | Drop | Note]:
        """The rows as they stand, a drop for each that cannot be read."""

    @override
    def read(self, *, pack: Pack, seed: int) -> Iterator[ReaderItem]:
        records: dict[str, list[Record]] = {}
        first: Drop | None = None
        found: Row | None = None
        filtered = False
        num_rows = 0
        names = (*self.columns.all_names(), *self.where)
        seen: dict[str, None] = {}
        unread: dict[str, None] = {}
        counts: Counter[str] = Counter()
        garbled = MojibakeCount()
        for row in drop_undecodable(self.rows(), source=self.label):
            if isinstance(row, Note):
                yield row
                continue
            num_rows += 1
            if isinstance(row, Row):
                row = replace(row, values=add_paths(row.values, names))
                seen.update(dict.fromkeys(row.values))
                unread.update(
                    dict.fromkeys(unread_names(without_decision(row.values), self.columns))
                )
            items = [row] if isinstance(row, Drop) else self._convert(row, pack, counts)
            if isinstance(items[-1], Record):  # its earlier turns are those of the others
                garbled.add(_texts(items[-1]), place=items[-1].place)
            for item in items:
                if isinstance(item, Record):
                    records.setdefault(item.group, []).append(item)
                    continue
                filtered = filtered or item.reason in OF_THE_KIND
                first = first or item
                found = found or (row if isinstance(row, Row) else None)
                yield item
        place = next(self.external_paths(), self.label)
        if not records and not filtered:
            raise self._explain_nothing(first, found, num_rows=num_rows, place=place)
        for name in sorted({*self.where, *self.columns.changed_names()} - seen.keys()):
            near = nearest(name, found=seen)
            hint = f"did you mean {near!r}?" if near else "leave it out, or name another"
            raise DataError(f"has no column {name!r}; found {quote(seen)}; {hint}", path=place)
        if names := [name for name in unread if name not in self.where]:
            yield Note("columns_not_read", {self.label: names})
        yield from (Note(name, count) for name, count in counts.items())
        yield from garbled.notes(source=self.label)
        yield from self._limit_answers([item for group in records.values() for item in group])

    def _convert(self, row: Row, pack: Pack, counts: Counter[str]) -> list[Record] | list[Drop]:
        wrong = [key for key, value in self.where.items() if str(row.values.get(key)) != value]
        if wrong:
            detail = f"{wrong[0]}={row.values.get(wrong[0])!r}"
            return [Drop(FILTERED, self.label, row.place, detail)]
        try:
            records = self._records(row, pack, counts)
        except RowError as error:
            return [Drop(error.reason, self.label, row.place, error.detail[:SHOWN_CHARS])]
        return records or [Drop(NOT_TRAINED, self.label, row.place)]

    def _records(self, row: Row, pack: Pack, counts: Counter[str]) -> list[Record]:
        """A record for each answer of a row that is learnt."""
        is_list = self.answers == "list"
        check_accepted(row.values)
        values = without_decision(row.values)
        values = write_list_values(values, columns=self.columns) if is_list else values
        found = read_row(values, self.columns)
        if any(key in row.values for key in CHAT_KEYS):
            check_tools(row.values)
            if not read_weight(row.values, keys=ROW_WEIGHTS):
                return []
        elif any(str(row.values.get(key)).lower() in NO_WEIGHT for key in ROW_WEIGHTS):
            return []
        found, images = take_images(
            found, row.values, column=self.columns.images, folder=self.image_folder
        )
        parts = [values.get(name) for name in (*self.columns.question, *ALPACA_QUESTION)]
        _count(found, counts, parts=parts)
        confidence = read_confidence(row.values.get(self.columns.confidence))
        specialty = pack.find_specialty(str(row.values.get(self.columns.department) or ""))
        asked = found.turns[0].question or found.turns[0].answer
        texts: list[str] = []
        records: list[Record] = []
        for index, turn in enumerate(found.turns):
            if turn.is_trained:
                record = Record(
                    id=f"{self.label}:{row.place}" + (f"/{index}" if index else ""),
                    question=turn.question,
                    answer=as_list_answer(turn.answer, separator=self.item_separator)
                    if is_list
                    else turn.answer,
                    answer_form="list" if is_list else "single",
                    group="+".join(images) or normalise(asked) or asked,
                    source=self.label,
                    specialty=specialty,
                    confidence=confidence,
                    history=tuple(texts),
                    images=images,
                    place=row.place,
                    rejected=found.rejected if index == len(found.turns) - 1 else "",
                    system=found.system,
                )
                records.append(record)
            texts += [turn.question, turn.answer]
        return records

    def _limit_answers(self, records: list[Record]) -> Iterator[Record | Drop]:
        """The records, but for those of questions with too many different answers."""
        answers: dict[tuple[str, ...], set[str]] = {}
        for record in records:
            answers.setdefault(_asked(record), set()).add(record.answer)
        for record in records:
            count = len(answers[_asked(record)])
            if count <= self.max_answers:
                yield record
            else:
                detail = f"{count} answers to {record.question[:SHOWN_CHARS]!r}"
                yield Drop(TOO_MANY_ANSWERS, self.label, record.place, detail)

    def _explain_nothing(
        self, first: Drop | None, found: Row | None, *, num_rows: int, place: Path | str
    ) -> DataError:
        if first is None:
            return DataError("holds no rows; write it again, or name another file", path=place)
        if found is not None and not found.values:
            return DataError("holds no rows but an object without keys", path=place)
        if found is not None and num_rows == 1 and (wrapped := describe_wrapped(found.values)):
            return DataError(wrapped, path=place)
        if found is not None and first.reason == MISSING_FIELD:
            message = describe_mismatch(found, self.columns, detail=first.detail)
            if find_chats(found.values):
                return DataError(message, path=place)
            names = sorted(path_names(found.values), key=lambda name: name.count(PATH_SIGN))
            return ColumnsError(message, found=names, path=place)
        advice = ADVICE.get(first.reason.key, "check the source's kind and its columns")
        return DataError(
            f"holds no usable row; the first at {first.place}: {first.reason.key} "
            f"({first.detail}); {advice}",
            path=place,
        )


def drop_undecodable(
    rows: Iterator[Row | Drop | Note], *, source: str
) -> Iterator[Row | Drop | Note]:
    """The rows, but for those with a text that lost characters, in whichever column."""
    for row in rows:
        lost = find_undecodable(row.values) if isinstance(row, Row) else ""
        if isinstance(row, Row) and lost:
            # Half a surrogate pair can be printed only as its number.
            shown = lost.encode(errors="backslashreplace").decode()
            yield Drop(UNDECODABLE, source, row.place, shown[:SHOWN_CHARS])
        else:
            yield row


def _texts(record: Record) -> Iterator[str]:
    """All texts that a record holds."""
    yield from (record.system, record.question, record.answer, record.rejected, *record.history)


def _asked(record: Record) -> tuple[str, ...]:
    """What a record asks; no two plain texts ask the same."""
    if not record.question:
        return (record.id,)
    texts = map(normalise, (*record.history, record.question))
    return (record.system, *record.images, *texts)


def _count(found: Conversation, counts: Counter[str], *, parts: Sequence[Json]) -> None:
    """Count what a conversation holds that no record shows, for the data card."""
    if found.skipped_greeting:
        counts["skipped_greetings"] += 1
    if found.ignored_names:
        counts["ignored_names"] += 1
    texts = [text for turn in found.turns for text in (turn.question, turn.answer)]
    if any(isinstance(text, str) and text in MISSING_WORDS for text in (*texts, *parts)):
        counts["missing_written_as_text"] += 1
    if untrained := sum(not turn.is_trained for turn in found.turns):
        counts["untrained_turns"] += untrained
