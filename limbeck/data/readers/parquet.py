"""Parquet files."""

from collections.abc import Iterator, Sequence
from typing import Literal

import pyarrow
from pyarrow import parquet
from typing_extensions import override

from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.records import Drop, Note
from limbeck.data.readers.arrow_values import label_names, plain_values, read_features
from limbeck.data.readers.base import FileReaderConfig, check_file
from limbeck.data.readers.label_names import LABEL_NAMES
from limbeck.data.readers.row_formats import RowReaderConfig
from limbeck.data.readers.row_values import Row

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
                features = read_features(file.schema_arrow)
                if labels := label_names(features):
                    yield Note(LABEL_NAMES, labels)
                for batch in file.iter_batches(batch_size=BATCH_ROWS):
                    for values in _rows_of(batch, features=features):
                        number += 1
                        yield Row(f"{self.path.name}:row {number}", values)
        except DataError:
            raise
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
            message = (
                f"cannot be read as Parquet after row {number}: {error}; write it again, or, if it "
                "is another kind of file, name it so"
            )
            raise DataError(message, path=self.path) from None

    def _check_names(self, names: Sequence[str]) -> None:
        if twice := [name for name in names if names.count(name) > 1]:
            message = f"has two columns {twice[0]!r}; rename one and write it again"
            raise DataError(message, path=self.path)


def _rows_of(batch: pyarrow.RecordBatch, *, features: JsonObject) -> Iterator[JsonObject]:
    """The rows of a batch; a text that is no UTF-8 keeps a mark where it lost characters."""
    names = batch.schema.names
    columns = [
        plain_values(column, feature=features.get(name))
        for name, column in zip(names, batch.columns, strict=True)
    ]
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))
