"""What a file holds, read as `prepare` would read it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from limbeck.contracts.errors import DataError
from limbeck.contracts.records import Drop, Note, Record
from limbeck.data.packs.load import empty_pack
from limbeck.data.readers.row_formats import RowReaderConfig
from limbeck.drafting.languages import count_languages

MAX_SAMPLE = 20_000
"""Records whose texts are looked at; all are read and counted."""
MAX_LABELS = 200
MAX_LABEL_RATIO = 0.2
"""Answers are labels where so few are distinct, in number and over the number of records."""
MAX_LABEL_CHARS = 40
SHOWN_DROPS = 3


@dataclass(frozen=True)
class Lengths:
    """How long texts are, in characters."""

    median: int
    most: int
    """Nineteen of twenty are at most so long."""
    longest: int

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Lengths":
        """The lengths of some texts, at least one."""
        lengths = np.array([len(text) for text in texts])
        median, most = np.quantile(lengths, [0.5, 0.95])
        return cls(int(median), int(most), int(lengths.max()))


@dataclass(frozen=True)
class FileFindings:
    """What one file holds."""

    records: tuple[Record, ...]
    dropped: dict[str, list[Drop]] = field(default_factory=dict)
    """By reason."""
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def num_read(self) -> int:
        """Records and drops together."""
        return len(self.records) + sum(map(len, self.dropped.values()))

    @property
    def sample(self) -> tuple[Record, ...]:
        """Records evenly spread over the file."""
        return self.records[:: -(-len(self.records) // MAX_SAMPLE)]

    @property
    def languages(self) -> Counter[str]:
        """Records of the sample in each language."""
        return count_languages(record.question + record.answer for record in self.sample)

    @property
    def labels(self) -> tuple[str, ...]:
        """The distinct answers where these are labels, the most frequent first; none otherwise."""
        counts = Counter(record.answer for record in self.records)
        few = len(counts) <= min(MAX_LABELS, MAX_LABEL_RATIO * len(self.records))
        short = max(map(len, counts)) <= MAX_LABEL_CHARS
        return tuple(label for label, _ in counts.most_common()) if few and short else ()

    @property
    def num_conversations(self) -> int:
        """Records with earlier turns."""
        return sum(bool(record.history) for record in self.records)

    @property
    def num_with_system(self) -> int:
        """Records with instructions before the conversation."""
        return sum(bool(record.system) for record in self.records)

    @property
    def num_pairs(self) -> int:
        """Records with a rejected answer."""
        return sum(bool(record.rejected) for record in self.records)

    @property
    def num_with_images(self) -> int:
        """Records with images."""
        return sum(bool(record.images) for record in self.records)

    @property
    def num_texts(self) -> int:
        """Records without a question: plain text."""
        return sum(not record.question for record in self.records)


def read_findings(source: RowReaderConfig) -> FileFindings:
    """What a source holds.

    Raises:
        DataError: it cannot be read, or holds no usable row.
    """
    records: list[Record] = []
    dropped: dict[str, list[Drop]] = {}
    notes: dict[str, object] = {}
    for item in source.read(pack=empty_pack(), seed=0):
        if isinstance(item, Record):
            records.append(item)
        elif isinstance(item, Drop):
            dropped.setdefault(item.reason.key, []).append(item)
        elif isinstance(item, Note):
            known = notes.get(item.name)
            if isinstance(known, dict) and isinstance(item.value, dict):
                notes[item.name] = {**known, **item.value}
            else:
                notes[item.name] = item.value
    if not records:
        reasons = ", ".join(f"{len(items)} {reason}" for reason, items in dropped.items())
        raise DataError(f"holds no usable row: {reasons or 'it is empty'}", path=source.label)
    return FileFindings(tuple(records), dropped, notes)
