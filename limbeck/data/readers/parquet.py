"""Parquet files."""

from collections.abc import Iterator, Sequence
from typing import Literal

import pyarrow
from pyarrow import parquet, types
from typing_extensions import override

from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import Json, JsonObject
from limbeck.contracts.records import Drop, Note
from limbeck.data.readers.base import FileReaderConfig, check_file
from limbeck.data.readers.row_formats import RowReaderConfig
from limbeck.data.readers.row_values import Row
from limbeck.data.readers.short_floats import holds_short_floats, shorten_floats

BATCH_ROWS = 4096


class Config(FileReaderConfig, RowReaderConfig):
    """Questions and answers in a Parquet file."""

    kind: Literal["parquet"] = "parquet"

    @override
    def rows(self) -> Iterator[Row | Drop | Note]:
        check_file(self.path)
        number = 0
        try:
            with parquet.ParquetFile(self.path) as file:
                self._check_names(file.schema_arrow.names)
                for batch in file.iter_batches(batch_size=BATCH_ROWS):
                    for values in _rows_of(batch):
                        number += 1
                        yield Row(f"{self.path.name}:row {number}", values)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            message = (
                f"cannot be read as Parquet after row {number}: {error}; write it again, or, if it "
                "is another kind of file, name it so"
            )
            raise DataError(message, path=self.path) from None

    def _check_names(self, names: Sequence[str]) -> None:
        if twice := [name for name in names if names.count(name) > 1]:
            message = f"has two columns {twice[0]!r}; rename one and write it again"
            raise DataError(message, path=self.path)


def _rows_of(batch: pyarrow.RecordBatch) -> Iterator[JsonObject]:
    """The rows of a batch; a text that is no UTF-8 keeps a mark where it lost characters."""
    columns = [_values_of(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _values_of(column: pyarrow.Array) -> list[Json]:
    if holds_short_floats(column.type):
        return [shorten_floats(value, column.type) for value in column.to_pylist()]
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        if not (types.is_string(column.type) or types.is_large_string(column.type)):
            raise
        content = column.cast(pyarrow.large_binary()).to_pylist()
        return [None if value is None else value.decode(errors="replace") for value in content]
