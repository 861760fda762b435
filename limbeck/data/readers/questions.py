"""Questions without answers: what a teacher is to answer, or to give its distributions on.

Left out: who answers them; the stage `label` does.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field
from typing_extensions import override

from limbeck.contracts.errors import ColumnsError, DataError
from limbeck.contracts.leaks import normalise
from limbeck.contracts.records import Change, Drop, Note, Record
from limbeck.data.filters.normalization.record import Normalizer
from limbeck.data.packs.schema import Pack
from limbeck.data.readers.base import SHOWN_CHARS, ReaderItem
from limbeck.data.readers.column_names import quote
from limbeck.data.readers.question_form import TEXT_SLOT, fill, slot_names
from limbeck.data.readers.row_files import file_rows
from limbeck.data.readers.row_formats import drop_undecodable
from limbeck.data.readers.row_shapes import Columns
from limbeck.data.readers.row_values import MISSING_FIELD, Row, RowError, add_paths, read_text
from limbeck.data.readers.text_files import TextFileReaderConfig


def _check_form(form: str) -> str:
    if slot_names(form) != (TEXT_SLOT,):
        raise ValueError(f"{form!r} has other slots than {{text}}, which each of `columns` fills")
    return form


class Config(TextFileReaderConfig):
    """Questions of a file of any kind; whatever else its rows hold is not read."""

    has_answers: ClassVar[bool] = False
    normalizes: ClassVar[bool] = True

    kind: Literal["questions"] = "questions"
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = ("question",)
    """Columns that hold a question each: two, for a file of pairs of sentences."""
    form: Annotated[str, AfterValidator(_check_form)] = "{text}"
    """How a text is put as a question: a template with the slot `{text}`. A brace that is text is
    written twice."""
    task: str = ""
    """The task of evaluation that asks in this form: what it asks is kept apart by its text."""
    header: tuple[str, ...] = ()
    """Names of the columns of tables whose first line does not give them."""

    @override
    def read(self, *, pack: Pack, seed: int) -> Iterator[ReaderItem]:
        normalizer = Normalizer(self.normalization, source=self.label)
        columns: dict[str, None] = {}
        found = False
        for row in drop_undecodable(self._rows(), source=self.label):
            if not isinstance(row, Row):
                yield row
                continue
            row = replace(row, values=add_paths(row.values, self.columns))
            columns |= dict.fromkeys(row.values)
            for name in self.columns:
                item, changes = self._read_text(row, name, normalizer)
                yield from changes
                yield item
                found = found or isinstance(item, Record)
        if not found:
            raise self._explain_nothing(columns)

    def _rows(self) -> Iterator[Row | Drop | Note]:
        # The readers of files need a column of answers: any that is there does.
        columns = Columns(question=self.columns, answer=self.columns[0])
        try:
            yield from file_rows(
                self.path,
                columns=columns,
                source=self.label,
                encoding=self.encoding,
                header=self.header,
            )
        except ColumnsError as error:
            raise self._explain_nothing(dict.fromkeys(error.found)) from None

    def _read_text(
        self, row: Row, name: str, normalizer: Normalizer
    ) -> tuple[Record | Drop, tuple[Change, ...]]:
        shown = str(dict(row.values))[:SHOWN_CHARS]
        try:
            text = normalizer.clean(read_text(row.values, name))
        except RowError as error:
            return Drop(error.reason, self.label, row.place, error.detail[:SHOWN_CHARS]), ()
        changes = tuple(normalizer.take_changes(row.place))
        if not text.strip():
            return Drop(MISSING_FIELD, self.label, row.place, f"nothing in {name!r}: {shown}"), ()
        key = normalise(text)
        record = Record(
            id=f"{self.label}:{row.place}:{name}",
            question=fill(self.form, {TEXT_SLOT: text}),
            answer="",
            group=f"{self.task}|{key}" if self.task else key,
            source=self.label,
            place=row.place,
        )
        return record, changes

    def _explain_nothing(self, found: dict[str, None]) -> DataError:
        return DataError(
            f"holds no text in the columns {quote(self.columns)}; found {quote(found)}; set "
            "`columns`",
            path=self.path,
        )
