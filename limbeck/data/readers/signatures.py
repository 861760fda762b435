"""Files that are no text, known by their first bytes: what they are, and what to do with each."""

from pathlib import Path

from limbeck.contracts.errors import DataError

SHEET = "save the sheet as CSV"
UNPACK = "unpack it, and name the file in it"
SIGNATURES = {
    b"PAR1": ("a Parquet file", "give its name the end .parquet"),
    b"PK\x03\x04": ("a ZIP archive, as spreadsheets are", f"{SHEET}, or {UNPACK}"),
    b"\xd0\xcf\x11\xe0": ("an old Office file", SHEET),
    b"\x1f\x8b": ("compressed with gzip", UNPACK),
    b"BZh": ("compressed with bzip2", UNPACK),
    b"\xfd7zXZ": ("compressed with xz", UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", UNPACK),
    b"%PDF-": ("a PDF", "write its questions and answers as JSONL or CSV"),
    b"ARROW1": ("an Arrow file", "save it as Parquet, or name the folder of the data set"),
    b"SQLite format 3": ("a database of SQLite", "save the table as CSV"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file with `git lfs pull`"),
}
"""How files begin that are often named like text."""
TEXT_SIGNATURES = (b"%PDF-", b"version https://git-lfs")
CONTROLS = frozenset(range(9))


def check_signature(head: bytes, *, path: Path) -> None:
    """Refuses a file by its first bytes.

    Raises:
        DataError: they are those of a file that is no text.
    """
    # Text may begin so as well, such as a column that is named PAR1.
    is_binary = any(byte in CONTROLS for byte in head)
    for start, (kind, advice) in SIGNATURES.items():
        if head.startswith(start) and (is_binary or start in TEXT_SIGNATURES):
            raise DataError(f"is {kind}, not text; {advice}", path=path)
