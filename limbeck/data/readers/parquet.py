"""Parquet files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow
from pyarrow import parquet

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Drop, Note
from limbeck.data.readers.row_formats import Row, RowReaderConfig

BATCH_ROWS = 4096


class Config(RowReaderConfig):
    """Questions and answers in a Parquet file."""

    kind: Literal["parquet"] = "parquet"
    path: Path

    @property
    def label(self) -> str:
        """The name given, or the file's."""
        return self.name or self.path.stem

    @property
    def place(self) -> str:
        """The path."""
        return str(self.path)

    def rows(self) -> Iterator[Row | Drop | Note]:
        """Every row of the file.

        Raises:
            DataError: the file is missing or is not Parquet.
        """
        if not self.path.is_file():
            raise DataError("no such file; check the path in the recipe", path=self.path)
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
