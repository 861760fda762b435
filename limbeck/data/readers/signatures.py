"""Files that hold no rows of text, known by their first bytes: what they are, and what to do."""

from pathlib import Path

from limbeck.contracts.errors import DataError

SHEET = "save the sheet as CSV"
TABLE = "save the table as CSV"
ROWS = "write its questions and answers as JSONL or CSV"
UNPACK = "unpack it, and name the file in it"
SAVED = "save it as Parquet, or name the folder of the data set"
BINARY = {
    b"PAR1": ("a Parquet file", "give its name the end .parquet"),
    b"PK\x03\x04": ("a ZIP archive, as spreadsheets are", f"{SHEET}, or {UNPACK}"),
    b"\xd0\xcf\x11\xe0": ("an old Office file", SHEET),
    b"\x1f\x8b": ("compressed with gzip", UNPACK),
    b"BZh": ("compressed with bzip2", UNPACK),
    b"\xfd7zXZ": ("compressed with xz", UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", UNPACK),
    b"ARROW1": ("an Arrow file", SAVED),
    b"\xff\xff\xff\xff": ("an Arrow file", SAVED),
    b"SQLite format 3": ("a database of SQLite", TABLE),
}
"""How files begin that are often named like text; text may begin so as well."""
MARKED = {
    b"%PDF-": ("a PDF", ROWS),
    b"-- MySQL dump": ("a dump of MySQL", TABLE),
    b"--\n-- PostgreSQL database dump": ("a dump of PostgreSQL", TABLE),
    b"<!DOCTYPE": ("a page of HTML", ROWS),
    b"<html": ("a page of HTML", ROWS),
    b"<?xml": ("XML", ROWS),
    b"{\\rtf": ("Rich Text", ROWS),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file with `git lfs pull`"),
}
"""How files begin that hold text of another kind."""
CONTROLS = frozenset(range(9))


def check_signature(head: bytes, *, path: Path) -> None:
    """Refuses a file by its first bytes.

    Raises:
        DataError: they are those of a file that holds no text, or text of another kind.
    """
    is_binary = any(byte in CONTROLS for byte in head)
    for start, (kind, advice) in (MARKED | BINARY if is_binary else MARKED).items():
        if head.startswith(start):
            raise DataError(f"is {kind}, not rows of text; {advice}", path=path)
