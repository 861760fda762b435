"""Classification files: a text and its label become a question and its answer.

A training text that the evaluation file also holds is dropped and counted.
"""

import dataclasses
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from limbeck.contracts.errors import ColumnsError, DataError
from limbeck.contracts.leaks import normalise
from limbeck.contracts.records import Change, Drop, Note, Question, Record
from limbeck.data.filters.in_evaluation import IN_EVALUATION
from limbeck.data.filters.normalization.record import Normalizer
from limbeck.data.packs.schema import Pack
from limbeck.data.readers.base import SHOWN_CHARS, ReaderItem
from limbeck.data.readers.column_names import nearest, quote
from limbeck.data.readers.mojibake import MojibakeCount
from limbeck.data.readers.row_files import file_rows
from limbeck.data.readers.row_formats import drop_undecodable
from limbeck.data.readers.row_shapes import Columns
from limbeck.data.readers.row_values import MISSING_FIELD, Row, RowError, read_text
from limbeck.data.readers.text_files import TextFileReaderConfig

TASK_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Config(TextFileReaderConfig):
    """Texts with labels, in JSON, a table or Parquet, by the ends of the files' names."""

    normalizes: ClassVar[bool] = True

    kind: Literal["labelled"] = "labelled"
    evaluation_path: Path
    """Only asked, never trained on."""
    task: Annotated[str, Field(pattern=TASK_NAME.pattern)]
    """What the evaluation calls it, such as `intent`."""
    form: Annotated[str, Field(pattern=r"\{text\}")]
    """How the text is put as a question: a template with the slot `{text}`."""
    text_column: str = "query"
    label_column: str = "label"
    header: tuple[str, ...] = ()
    """Names of the columns of tables whose first line does not give them."""

    @override
    def read(self, *, pack: Pack, seed: int) -> Iterator[ReaderItem]:
        asked: dict[str, tuple[str, str, str]] = {}
        for item in self._labelled(self.evaluation_path):
            if isinstance(item, tuple):
                asked.setdefault(normalise(item[1]), item)
            elif isinstance(item, Note):
                yield item
            elif isinstance(item, Drop):
                yield dataclasses.replace(item, reason=item.reason.in_evaluation_file())
        labels: dict[str, None] = dict.fromkeys(label for _, _, label in asked.values())
        for item in self._labelled(self.path):
            if not isinstance(item, tuple):
                yield item
                continue
            place, text, label = item
            labels.setdefault(label)
            if normalise(text) in asked:
                yield Drop(IN_EVALUATION, self.label, place, text[:SHOWN_CHARS])
                continue
            yield Record(
                id=f"{self.label}:{place}",
                question=self._fill(text),
                answer=label,
                group=f"{self.task}|{normalise(text)}",
                source=self.label,
                place=place,
            )
        for key, (place, text, label) in asked.items():
            yield Question(
                id=f"{self.label}:{place}",
                task=self.task,
                question=self._fill(text),
                answers=(label,),
                form="single",
                options=tuple(sorted(labels)),
                group=f"{self.task}|{key}",
            )

    def _fill(self, text: str) -> str:
        return self.form.replace("{text}", text)

    def _labelled(self, path: Path) -> Iterator[tuple[str, str, str] | Drop | Change | Note]:
        """Place, text and label of each good entry."""
        found = False
        seen: dict[str, None] = {}
        normalizer = Normalizer(self.normalization, source=self.label)
        garbled = MojibakeCount()
        for row in drop_undecodable(self._rows(path), source=self.label):
            if not isinstance(row, Row):
                yield row
                continue
            seen.update(dict.fromkeys(row.values))
            try:
                text, label = self._read_row(row)
            except RowError as error:
                yield Drop(error.reason, self.label, row.place, error.detail[:SHOWN_CHARS])
                continue
            garbled.add((text, label), place=row.place)
            text = normalizer.clean(text)
            changes = tuple(normalizer.take_changes(row.place))
            if not text.strip():
                shown = str(dict(row.values))[:SHOWN_CHARS]
                yield Drop(MISSING_FIELD, self.label, row.place, shown)
                continue
            found = True
            yield from changes
            yield row.place, text, label
        if not found:
            raise self._explain_nothing(seen, path=path)
        yield from garbled.notes(source=f"{self.label} ({path.name})")

    def _rows(self, path: Path) -> Iterator[Row | Drop | Note]:
        columns = Columns(question=(self.text_column,), answer=self.label_column)
        try:
            yield from file_rows(
                path,
                columns=columns,
                source=self.label,
                encoding=self.encoding,
                header=self.header,
            )
        except ColumnsError as error:
            raise self._explain_nothing(error.found, path=path) from None

    def _read_row(self, row: Row) -> tuple[str, str]:
        """Text and label, a number as it is written.

        Raises:
            RowError: one of them is missing, or is no text.
        """
        text, label = (
            read_text(row.values, name) for name in (self.text_column, self.label_column)
        )
        if not text or not label:
            raise RowError(MISSING_FIELD, str(dict(row.values)))
        return text, label.strip()

    def _explain_nothing(self, found: Collection[str], *, path: Path) -> DataError:
        names = f"{self.text_column!r} and {self.label_column!r}"
        missing = [name for name in (self.text_column, self.label_column) if name not in found]
        near = [nearest(name, found=found) for name in missing]
        hint = f"did you mean {quote(filter(None, near))}? " if any(near) else ""
        return DataError(
            f"holds no row with the texts {names}; found {quote(found)}; {hint}"
            "set text_column and label_column",
            path=path,
        )
