"""The source of a recipe that reads a given file, folder or data set of the hub."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from limbeck.contracts.config import resolve
from limbeck.contracts.errors import ColumnsError, DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.registry import READERS
from limbeck.data.readers.base import check_file
from limbeck.data.readers.column_names import guess_columns, quote
from limbeck.data.readers.row_files import KINDS, find_split_files, is_dataset
from limbeck.data.readers.row_formats import RowReaderConfig
from limbeck.data.readers.row_shapes import Columns
from limbeck.data.readers.row_values import SURROGATE
from limbeck.data.readers.signatures import check_signature

ADDRESS_SIGN = "://"
HEAD_BYTES = 1 << 12
"""Tell what a file is whose name does not."""
NO_NAMES = ", or, if these are no names, put a line of names there, with no title above it"


def describe_source(
    data: str, *, question: Sequence[str], answer: str, name: str, image_folder: str = ""
) -> JsonObject:
    """The source as a recipe states it; empty columns are left to the reader.

    Images lie beside the file, where no folder is named.

    Raises:
        DataError: there is no such file, or its kind is not known.
    """
    path = Path(data)
    found: JsonObject = {"kind": "hub", "name": name, "dataset": data}
    if ADDRESS_SIGN in data:
        raise DataError(
            "is an address; download the file and name that, or name a data set of the hub as "
            "ORGANISATION/NAME",
            path=data,
        )
    if SURROGATE.search(data):
        raise DataError(
            "has a name that is not UTF-8, so no recipe can hold it; rename it", path=path
        )
    is_there = path.exists() or path.is_symlink()
    if (is_there and not path.is_dir()) or path.suffix.lower() in KINDS:
        if path.is_dir():
            raise DataError("is a folder named like a file; name the file in it", path=path)
        if not is_there:
            raise DataError("no such file; check the path, from where you are now", path=path)
        check_file(path)
        if path.suffix.lower() not in KINDS:
            with path.open("rb") as file:
                check_signature(file.read(HEAD_BYTES), path=path)
            known = ", ".join(KINDS)
            raise DataError(
                f"ends in none of {known}; rename it if it is one of these, or save it as one",
                path=path,
            )
        found = {"kind": KINDS[path.suffix.lower()], "name": name, "path": data}
        image_folder = image_folder or str(path.parent)
    elif path.is_dir():
        if not any(path.iterdir()):
            raise DataError("is an empty folder; name the file, or the folder of it", path=path)
        kind = "hub" if is_dataset(path) else "jsonl"
        files = {} if kind == "hub" else find_split_files(path)
        if kind == "jsonl" and not files and not any(path.glob("*.json*")):
            names = quote(sorted(item.name for item in path.iterdir()))
            raise DataError(
                f"is a folder without JSON, and no data set that `datasets` saved; name one file "
                f"of it: {names}",
                path=path,
            )
        found = {"kind": kind, "name": name, "path" if kind == "jsonl" else "dataset": data}
        if files:
            found |= {"kind": KINDS[files["train"].suffix.lower()], "path": str(files["train"])}
        image_folder = image_folder or (data if kind == "jsonl" else "")
    elif data.count("/") != 1:
        raise DataError(
            "no such file or folder; a data set of the hub is named ORGANISATION/NAME", path=path
        )
    found |= {"image_folder": image_folder} if image_folder else {}
    columns = {"question": list(question)} if question else {}
    columns |= {"answer": answer} if answer else {}
    chosen = Columns.model_validate(columns)
    if chosen.answer in chosen.question:
        raise DataError(
            f"the column {chosen.answer!r} cannot be both the question and the answer; name the "
            "other with --question or --answer",
            path=path,
        )
    return found | ({"columns": columns} if columns else {})


def suggest_columns(source: JsonObject, *, found: Sequence[str], path: str) -> JsonObject:
    """The source with the columns that a file's own names make likely.

    Raises:
        DataError: none is likely for the question, or none for the answer.
    """
    question, answer = guess_columns(found, Columns())
    if not all(question) or not answer:
        raise DataError(
            f"has the columns {quote(found)}; say which hold what with --question and --answer"
            + (NO_NAMES if source["kind"] == "csv" else ""),
            path=path,
        )
    return source | {"columns": {"question": question, "answer": answer}}


def explain_options(error: ColumnsError, source: JsonObject, *, path: str) -> DataError:
    """The error of columns that the options name, in terms of these options."""
    columns = Columns.model_validate(source["columns"])
    named = [*(("--question", name) for name in columns.question), ("--answer", columns.answer)]
    wrong = [(option, name) for option, name in named if name not in error.found]
    if not wrong:
        return error
    question, answer = guess_columns(error.found, columns)
    likely = {"--question": question[0], "--answer": answer}
    hints = [f"{option} {likely[option] or 'NAME'}" for option in dict(wrong)]
    missing = " and no ".join(repr(name) for _, name in wrong)
    return DataError(
        f"has no column {missing}; found {quote(error.found)}; write {' and '.join(hints)}",
        path=path,
    )


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
