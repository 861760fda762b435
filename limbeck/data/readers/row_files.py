"""Files of rows by their names: which reader a file needs, its rows, and which split it is."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from limbeck.contracts.config import resolve
from limbeck.contracts.errors import DataError
from limbeck.contracts.records import SPLITS, Drop, Note, Split
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
OTHER_SPLITS = "other_splits"
"""The note of a data set's splits that a source does not read, with their rows, by its label."""
SPLIT_NAMES: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What splits are called, in the names of files and in `datasets`."""
FILE_NAME = re.compile(rf"(?:.*[-_.])?({'|'.join(SPLIT_NAMES)})(?:[-_.]\d+(?:-of-\d+)?)?")
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


def find_split_files(folder: Path) -> dict[Split, Path]:
    """The files of a folder by their splits; none where it has no file of training beside others.

    Raises:
        DataError: a split has several files.
    """
    found: dict[Split, list[Path]] = {}
    for path in sorted((*folder.glob("*.*"), *folder.glob("*/*.*"))):
        if path.suffix.lower() not in KINDS:
            continue
        name = FILE_NAME.fullmatch(path.stem.lower())
        above = path.parent.name.lower() if path.parent != folder else ""
        if name or above in SPLIT_NAMES:
            found.setdefault(SPLIT_NAMES[name[1] if name else above], []).append(path)
    if "train" not in found or len(found) < 2:
        return {}
    for split, paths in found.items():
        if len(paths) > 1:
            names = ", ".join(str(path.relative_to(folder)) for path in paths[:4])
            raise DataError(
                f"holds {len(paths)} files of the split {split!r} ({names}), and files of others; "
                "write each split as one file, or name one file",
                path=folder,
            )
    return {split: found[split][0] for split in SPLITS if split in found}


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
