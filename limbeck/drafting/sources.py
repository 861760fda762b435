"""The source of a recipe that reads a given file, folder or data set of the hub."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from limbeck.contracts.config import resolve
from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.registry import READERS
from limbeck.data.readers.column_names import guess_columns
from limbeck.data.readers.row_files import KINDS
from limbeck.data.readers.row_formats import RowReaderConfig
from limbeck.data.readers.row_shapes import Columns


def describe_source(
    data: str, *, question: str, answer: str, name: str, image_folder: str = ""
) -> JsonObject:
    """The source as a recipe states it; empty columns are left to the reader.

    Images lie beside the file, where no folder is named.

    Raises:
        DataError: there is no such file, or its kind is not known.
    """
    path = Path(data)
    found: JsonObject = {"kind": "hub", "name": name, "dataset": data}
    if path.is_file() or path.suffix.lower() in KINDS:
        if not path.is_file():
            raise DataError("no such file; check the path, from where you are now", path=path)
        if path.suffix.lower() not in KINDS:
            known = ", ".join(KINDS)
            raise DataError(f"ends in none of {known}; rename it to what it is", path=path)
        found = {"kind": KINDS[path.suffix.lower()], "name": name, "path": data}
        image_folder = image_folder or str(path.parent)
    elif path.is_dir():
        kind = "jsonl" if any(path.glob("*.json*")) and not is_dataset(path) else "hub"
        found = {"kind": kind, "name": name, "path" if kind == "jsonl" else "dataset": data}
        image_folder = image_folder or (data if kind == "jsonl" else "")
    elif data.count("/") != 1:
        raise DataError(
            "no such file or folder; a data set of the hub is named ORGANISATION/NAME", path=path
        )
    found |= {"image_folder": image_folder} if image_folder else {}
    columns = {"question": [question]} if question else {}
    columns |= {"answer": answer} if answer else {}
    return found | ({"columns": columns} if columns else {})


def is_dataset(folder: Path) -> bool:
    """Whether a folder is one that `datasets` saved."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def suggest_columns(source: JsonObject, *, found: Sequence[str]) -> JsonObject:
    """The source with the columns that a file's own names make likely.

    Raises:
        DataError: none is likely for the question, or none for the answer.
    """
    question, answer = guess_columns(found, Columns())
    if not all(question) or not answer:
        raise DataError(
            f"has the columns {', '.join(map(repr, found))}; say which hold what with --question "
            "and --answer",
            path=source["name"],
        )
    return source | {"columns": {"question": question, "answer": answer}}


def open_source(source: JsonObject) -> RowReaderConfig:
    """The reader of a source.

    Raises:
        DataError: a setting is wrong.
    """
    kind = resolve(READERS, source["kind"], what="source")
    try:
        return kind.model_validate(source)
    except ValidationError as error:
        raise DataError(str(error.errors()[0]["msg"]), path=str(source)) from None
