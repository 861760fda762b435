"""What every filter shares: a step that takes a stream of records and yields those that stay.

A filter that needs all records at once takes them in first; any other passes them on one by one.
"""

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from limbeck.contracts.config import Config
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.records import Question, Record, Source
from limbeck.data.filters.entities import Lexicon
from limbeck.data.filters.record_log import RecordLog
from limbeck.data.packs.schema import Pack


@dataclass(frozen=True)
class FilterContext:
    """What filters are given besides the records."""

    pack: Pack
    lexicon: Lexicon
    sources: Mapping[str, Source]
    """By their labels."""
    questions: Sequence[Question]
    """The evaluation's questions; complete once every source is read."""
    seed: int
    log: RecordLog
    card: JsonObject = field(default_factory=dict)
    """What filters add to the data card, by the card's keys."""


class FilterConfig(Config, abc.ABC):
    """Base of every filter: its settings, what it applies to, and the step itself."""

    kind: str
    """The name of the filter's kind, as in the registry."""

    @property
    def domain_need(self) -> str:
        """What of it needs the domain of a pack; empty: nothing."""
        return ""

    @abc.abstractmethod
    def applies_to(self, source: Source) -> bool:
        """Whether the filter applies to the records of a source; all others pass."""

    @abc.abstractmethod
    def run(self, records: Iterable[Record], *, context: FilterContext) -> Iterator[Record]:
        """The records that stay, in order; every other one is logged with its reason."""
