"""Parquet files."""

from collections.abc import Iterator
from typing import Literal

import pyarrow
from pyarrow import parquet
from typing_extensions import override

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Drop, Note
from limbeck.data.readers.base import FileReaderConfig, check_file
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
                for batch in file.iter_batches(batch_size=BATCH_ROWS):
                    for values in batch.to_pylist():
                        number += 1
                        yield Row(f"{self.path.name}:row {number}", values)
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            message = f"cannot be read as Parquet after row {number}: {error}"
            raise DataError(message, path=self.path) from None
