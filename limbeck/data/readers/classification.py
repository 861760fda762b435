"""Classification files: a text, or several, and their label become a question and its answer.

A training row that asks what a row of the evaluation file asks is dropped and counted. Texts in
another order ask the same there, and stay in one split: whoever has learnt (b, a) has read (a, b).
Within one file both orders stay, since in some tasks (premise and hypothesis) they are two
questions.
"""

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from typing_extensions import override

from limbeck.contracts.errors import ColumnsError, DataError
from limbeck.contracts.leaks import LeakIndex, normalise
from limbeck.contracts.records import Change, Drop, Note, Question, Reason, Record
from limbeck.data.filters.dedup import DUPLICATE
from limbeck.data.filters.in_evaluation import IN_EVALUATION
from limbeck.data.filters.normalization.record import NOTHING_LEFT, Normalizer
from limbeck.data.packs.schema import Pack
from limbeck.data.readers.base import SHOWN_CHARS, ReaderItem
from limbeck.data.readers.column_names import nearest, quote
from limbeck.data.readers.label_names import (
    LABEL_NAMES,
    LabelText,
    check_distinct,
    name_label,
    name_stored,
    read_numbers,
)
from limbeck.data.readers.mojibake import MojibakeCount
from limbeck.data.readers.question_form import TEXT_SLOT, check_form, fill, slot_names
from limbeck.data.readers.row_files import file_rows
from limbeck.data.readers.row_formats import drop_undecodable
from limbeck.data.readers.row_shapes import Columns
from limbeck.data.readers.row_values import (
    MISSING_FIELD,
    Row,
    RowError,
    add_paths,
    is_read,
    read_text,
)
from limbeck.data.readers.text_files import TextFileReaderConfig

logger = logging.getLogger(__name__)

TASK_NAME = re.compile(r"[a-z][a-z0-9_]*")
DEFAULT_COLUMN = "query"
CONTRADICTED = Reason("contradicted_label", "标签矛盾", "another label elsewhere")


@dataclass(frozen=True)
class Example:
    """One labelled row, its texts by the slots of the form."""

    place: str
    texts: Mapping[str, str]
    label: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Its texts without what makes no difference, in their order."""
        return tuple(map(normalise, self.texts.values()))

    @property
    def shown(self) -> str:
        """Its texts as the list of drops shows them."""
        return " | ".join(self.texts.values())[:SHOWN_CHARS]


class Config(TextFileReaderConfig):
    """Texts with labels, in JSON, a table or Parquet, by the ends of the files' names."""

    normalizes: ClassVar[bool] = True

    kind: Literal["labelled"] = "labelled"
    evaluation_path: Path
    """Only asked, never trained on."""
    task: Annotated[str, Field(pattern=TASK_NAME.pattern)]
    """What the evaluation calls it, such as `intent`."""
    form: Annotated[str, AfterValidator(check_form)]
    """How a row is put as a question: a template whose slots name columns, such as `{query1}`; the
    slot `{text}` is `text_column`. A brace that is text is written twice."""
    text_column: str = DEFAULT_COLUMN
    label_column: str = "label"
    labels: Annotated[
        Mapping[LabelText, LabelText], BeforeValidator(read_numbers), AfterValidator(check_distinct)
    ] = {}
    """What the labels of the files are called, such as `{"0": unrelated, "1": related}`; empty: as
    the files write them. A row with another label is dropped as `unnamed_label`."""
    header: tuple[str, ...] = ()
    """Names of the columns of tables whose first line does not give them."""

    @model_validator(mode="after")
    def _check_columns(self) -> "Config":
        if self.text_column != DEFAULT_COLUMN and TEXT_SLOT not in self.columns:
            raise ValueError(
                f"text_column {self.text_column!r} fills the slot {{text}}, and `form` has none; "
                "leave it out, or add the slot"
            )
        if self.label_column in self.columns.values():
            raise ValueError(
                f"`form` asks with the label_column {self.label_column!r}, so the question would "
                "hold its answer; name another column"
            )
        return self

    @property
    def columns(self) -> dict[str, str]:
        """The columns of the texts by the slots of the form."""
        names = slot_names(self.form)
        return {name: self.text_column if name == TEXT_SLOT else name for name in names}

    @override
    def read(self, *, pack: Pack, seed: int) -> Iterator[ReaderItem]:
        same: dict[tuple[str, ...], list[Example]] = {}
        for item in self._examples(self.evaluation_path):
            if isinstance(item, Example):
                same.setdefault(item.keys, []).append(item)
            elif isinstance(item, Note):
                yield item
            elif isinstance(item, Drop):
                yield dataclasses.replace(item, reason=item.reason.in_evaluation_file())
        settled = [item for examples in same.values() for item in self._settle(examples)]
        asked = [item for item in settled if isinstance(item, Question)]
        drops = [item for item in settled if isinstance(item, Drop)]
        self._warn_of_contradictions(drops)
        for drop in drops:
            yield dataclasses.replace(drop, reason=drop.reason.in_evaluation_file())
        labels = {answer for question in asked for answer in question.answers}
        held_out = LeakIndex(asked)
        for item in self._examples(self.path):
            if not isinstance(item, Example):
                yield item
                continue
            labels.add(item.label)
            record = self._record(item)
            if held_out.find(record):
                yield Drop(IN_EVALUATION, self.label, item.place, item.shown)
            else:
                yield record
        options = tuple(sorted(labels))
        yield from (dataclasses.replace(question, options=options) for question in asked)
        if unused := [label for label, name in self.labels.items() if name not in labels]:
            logger.warning("%s: no row has the labels %s of `labels`", self.label, quote(unused))
            yield Note("labels_without_rows", {self.label: unused})

    def _settle(self, same: Sequence[Example]) -> Iterator[Question | Drop]:
        """The one question of rows with the same texts, and a drop for each other row.

        Its label is that of most rows. Without one there is no question, as in SNLI (Bowman et al.
        2015, sec. 2.2, arXiv:1508.05326): whichever was taken would be right by chance.
        """
        counts = Counter(example.label for example in same).most_common(2)
        is_settled = len(counts) == 1 or counts[0][1] > counts[1][1]
        kept = next((e for e in same if is_settled and e.label == counts[0][0]), None)
        for example in same:
            if example is kept:
                yield self._question(example)
            elif kept is not None and example.label == kept.label:
                detail = f"of {self.label}:{kept.place}: {example.shown}"
                yield Drop(DUPLICATE, self.label, example.place, detail)
            else:
                other = next(e for e in (kept, *same) if e and e.label != example.label)
                detail = f"{example.label!r}, and {other.label!r} at {other.place}: {example.shown}"
                yield Drop(CONTRADICTED, self.label, example.place, detail)

    def _warn_of_contradictions(self, drops: Sequence[Drop]) -> None:
        found = [drop for drop in drops if drop.reason == CONTRADICTED]
        if found:
            logger.warning(
                "%s: %d rows of %s contradict another row's label, such as %s: %s; the label of "
                "most rows counts, and a question without one is not asked",
                self.label,
                len(found),
                self.evaluation_path.name,
                found[0].place,
                found[0].detail,
            )

    def _question(self, example: Example) -> Question:
        return Question(
            id=f"{self.label}:{example.place}",
            task=self.task,
            question=fill(self.form, example.texts),
            answers=(example.label,),
            form="single",
            group=self._group(example),
        )

    def _record(self, example: Example) -> Record:
        return Record(
            id=f"{self.label}:{example.place}",
            question=fill(self.form, example.texts),
            answer=example.label,
            group=self._group(example),
            source=self.label,
            place=example.place,
        )

    def _group(self, example: Example) -> str:
        # No key holds a line end, so that no two lists of texts have one group.
        return f"{self.task}|" + "\n".join(sorted(example.keys))

    def _examples(self, path: Path) -> Iterator[Example | Drop | Change | Note]:
        """What the rows of a file are.

        Raises:
            DataError: none of them is an example; says what was found instead.
        """
        found = False
        first: Drop | None = None
        seen: dict[str, None] = {}
        normalizer = Normalizer(self.normalization, source=self.label)
        garbled = MojibakeCount()
        names = self.labels
        for item in drop_undecodable(self._rows(path), source=self.label):
            if isinstance(item, Note) and item.name == LABEL_NAMES:
                names = name_stored(self.labels, note=item.value, column=self.label_column)
            if isinstance(item, Row):
                item = dataclasses.replace(item, values=add_paths(item.values, self._needed()))
                seen.update(dict.fromkeys(item.values))
                item = self._read_row(item, names=names)
            if isinstance(item, Example):
                garbled.add((*item.texts.values(), item.label), place=item.place)
                item = self._clean(item, normalizer=normalizer)
                changes = tuple(normalizer.take_changes(item.place))
                yield from changes if isinstance(item, Example) else ()
            if isinstance(item, Drop):
                first = first or item
            found = found or isinstance(item, Example)
            yield item
        if not found:
            raise self._explain_nothing(tuple(seen), path=path, first=first)
        yield from garbled.notes(source=f"{self.label} ({path.name})")
        if unread := [name for name in seen if not is_read(name, names=self._needed())]:
            yield Note("columns_not_read", {f"{self.label} ({path.name})": unread})

    def _needed(self) -> tuple[str, ...]:
        """The columns that every row needs."""
        return *self.columns.values(), self.label_column

    def _rows(self, path: Path) -> Iterator[Row | Drop | Note]:
        columns = Columns(question=tuple(self.columns.values()), answer=self.label_column)
        try:
            yield from file_rows(
                path,
                columns=columns,
                source=self.label,
                encoding=self.encoding,
                header=self.header,
            )
        except ColumnsError as error:
            raise self._explain_nothing(tuple(error.found), path=path, first=None) from None

    def _read_row(self, row: Row, *, names: Mapping[str, str]) -> Example | Drop:
        """Texts and label, numbers as they are written; a drop where one is missing or no text."""
        try:
            texts = {slot: read_text(row.values, name) for slot, name in self.columns.items()}
            label = read_text(row.values, self.label_column).strip()
            if not label or not all(texts.values()):
                raise RowError(MISSING_FIELD, str(dict(row.values)))
            return Example(row.place, texts, name_label(label, names=names))
        except RowError as error:
            return Drop(error.reason, self.label, row.place, error.detail[:SHOWN_CHARS])

    def _clean(self, example: Example, *, normalizer: Normalizer) -> Example | Drop:
        """The example with its texts normalised; a drop where nothing is left of one."""
        texts = {slot: normalizer.clean(text) for slot, text in example.texts.items()}
        if all(map(str.strip, texts.values())):
            return dataclasses.replace(example, texts=texts)
        return Drop(NOTHING_LEFT, self.label, example.place, example.shown)

    def _explain_nothing(
        self, found: tuple[str, ...], *, path: Path, first: Drop | None
    ) -> DataError:
        missing = [name for name in self._needed() if name not in found]
        if first is not None and not (missing and found):
            other = "columns or `labels`" if self.labels else "columns"
            return DataError(
                f"holds no usable row; the first at {first.place}: {first.reason.key} "
                f"({first.detail}); correct the file, or set other {other}",
                path=path,
            )
        rest = [name for name in found if name not in self._needed()]
        near = dict.fromkeys(nearest(name, found=rest) for name in missing)
        hint = f"did you mean {quote(filter(None, near))}? " if any(near) else ""
        names = " and ".join(map(repr, self._needed()))
        slots = {"text_column" if slot == TEXT_SLOT else "`form`": None for slot in self.columns}
        return DataError(
            f"holds no row with the texts {names}; found {quote(found)}; {hint}"
            f"set {', '.join(slots)} and label_column",
            path=path,
        )
