"""The splits that a folder already has: files named after them, or what `datasets` saved.

A recipe trains on one and asks the others; read as one source, their test questions would be
learnt.
"""

from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.errors import DataError
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.records import Split
from limbeck.data.readers.column_names import quote
from limbeck.data.readers.row_files import (
    KINDS,
    OTHER_SPLITS,
    PLAIN_TEXT,
    SPLIT_NAMES,
    find_split_files,
)
from limbeck.drafting.findings import FileFindings, read_findings
from limbeck.drafting.sources import open_source


@dataclass(frozen=True)
class HeldOut:
    """A split that a recipe asks and does not train on."""

    source: JsonObject
    findings: FileFindings

    def describe(self) -> str:
        """What becomes of it, in words for the user."""
        use = "asked in the report" if self.source["corpus_split"] == "test" else "held out"
        count = len(self.findings.records)
        return f"{count:,} records of {self.source['name']} are {use}, not trained on"


def held_out_sources(source: JsonObject, findings: FileFindings, *, data: str) -> list[JsonObject]:
    """The sources of the other splits, each read as that of training is."""
    places: dict[Split, JsonObject] = {}
    if source["kind"] == "hub":
        names = findings.notes.get(OTHER_SPLITS, {})
        for name in names.get(source["name"], ()) if isinstance(names, dict) else ():
            if name in SPLIT_NAMES:
                places[SPLIT_NAMES[name]] = {"split": name}
    elif Path(data).is_dir():
        for split, path in find_split_files(Path(data)).items():
            places[split] = {"kind": KINDS[path.suffix.lower()], "path": str(path)}
    return [
        {**source, **place, "name": f"{source['name']}-{split}", "corpus_split": split}
        for split, place in places.items()
        if split != "train"
    ]


def describe_unused(data: str) -> str:
    """Which files of a folder of splits belong to none of them, in words for the user; '' if none.

    Texts are mostly licences and descriptions.
    """
    folder = Path(data)
    used = find_split_files(folder).values() if folder.is_dir() else ()
    unused = [
        path.name
        for path in sorted(folder.glob("*"))
        if used
        and path not in used
        and KINDS.get(path.suffix.lower())
        and path.suffix != PLAIN_TEXT
    ]
    return f"not read, since they are named after no split: {quote(unused)}" if unused else ""


def read_held_out(sources: list[JsonObject]) -> tuple[list[HeldOut], list[str]]:
    """The splits that can be asked, and why the others cannot."""
    held_out: list[HeldOut] = []
    doubts: list[str] = []
    for source in sources:
        try:
            held_out.append(HeldOut(source, read_findings(open_source(source))))
        except DataError as error:
            doubts.append(f"the split {source['corpus_split']!r} is left out: {error}")
    return held_out, doubts
