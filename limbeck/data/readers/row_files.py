"""Files of rows by the ends of their names: which reader a file needs, and its rows."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from limbeck.contracts.config import resolve
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Drop, Note
from limbeck.contracts.registry import READERS
from limbeck.data.readers.column_names import quote
from limbeck.data.readers.row_formats import RowReaderConfig
from limbeck.data.readers.row_shapes import Columns
from limbeck.data.readers.row_values import Row

KINDS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
}
"""Kinds of sources by the ends of files' names."""
SPLITS_FILE = "dataset_dict.json"
PLAIN_TEXT = ".txt"
JSON_STARTS = (b"{", b"[")


def file_rows(
    path: Path, *, columns: Columns, source: str, encoding: str, header: tuple[str, ...]
) -> Iterator[Row | Drop | Note]:
    """The rows of a file of any known kind, or of a folder that `datasets` saved; of an unknown
    kind, of JSON.

    Raises:
        DataError: the file cannot be read, or a setting does not fit its kind.
    """
    if (path / SPLITS_FILE).is_file():
        names = json.loads((path / SPLITS_FILE).read_text(encoding="utf-8"))["splits"]
        raise DataError(f"holds the splits {quote(names)}; name the folder of one", path=path)
    if is_dataset(path):
        settings = {"dataset": str(path), "name": source, "columns": columns}
        yield from _open("hub", settings).rows()
        return
    kind = KINDS.get(path.suffix.lower(), "jsonl")
    if path.suffix.lower() == PLAIN_TEXT and _begins_json(path):
        kind = "jsonl"
    settings: dict[str, object] = {"path": path, "name": source, "columns": columns}
    for name, value, kinds in (
        ("encoding", encoding, ("jsonl", "csv")),
        ("header", header, ("csv",)),
    ):
        if value and kind not in kinds:
            raise DataError(f"is no file that `{name}` could describe; leave it out", path=path)
        if value:
            settings[name] = value
    yield from _open(kind, settings).rows()


def is_dataset(folder: Path) -> bool:
    """Whether a folder is one that `datasets` saved."""
    return (folder / "state.json").is_file() or (folder / SPLITS_FILE).is_file()


def _open(kind: str, settings: Mapping[str, object]) -> RowReaderConfig:
    reader: type[RowReaderConfig] = resolve(READERS, kind, what="source")
    return reader.model_validate({"kind": kind, **settings})


def _begins_json(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(JSON_STARTS)
