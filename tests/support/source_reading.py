"""Read one source as `prepare` does, its items sorted by what they are."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.config import resolve
from limbeck.contracts.records import Drop, Note, Question, Record
from limbeck.contracts.registry import READERS
from tests.support.medical_pack import medical_pack


@dataclass(frozen=True)
class Found:
    """What a source gave."""

    records: list[Record]
    drops: list[Drop]
    notes: dict[str, object]
    questions: list[Question]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Questions and answers, in order."""
        return [(record.question, record.answer) for record in self.records]

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Places without the file's name, and reasons, of the drops."""
        return [(drop.place.split(":", 1)[-1], drop.reason.key) for drop in self.drops]


def read_source(kind: str, **fields: object) -> Found:
    """Everything that a source of the medical pack yields."""
    config = resolve(READERS, kind, what="source").model_validate({"kind": kind, **fields})
    items = list(config.read(pack=medical_pack(), seed=0))
    return Found(
        [item for item in items if isinstance(item, Record)],
        [item for item in items if isinstance(item, Drop)],
        {item.name: item.value for item in items if isinstance(item, Note)},
        [item for item in items if isinstance(item, Question)],
    )


def read_rows(folder: Path, *rows: object, **fields: object) -> Found:
    """What JSON lines of these rows give."""
    path = folder / "a.jsonl"
    path.write_text(join_lines(rows), encoding="utf-8")
    return read_source("jsonl", path=path, **fields)


def join_lines(rows: Iterable[object]) -> str:
    """Rows as JSON lines; a text is a line as it stands."""
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    return "".join(line + "\n" for line in lines)
