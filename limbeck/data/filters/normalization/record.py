"""The texts of a record as its source's `normalization` asks, with every change counted."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, final

from limbeck.contracts.leaks import normalise
from limbeck.contracts.records import Change, Drop, Reason, Record
from limbeck.data.filters.normalization import light, zh

Normalization = Literal["none", "light", "zh"]
CLEAN: Mapping[Normalization, Callable[..., str]] = {"light": light.clean, "zh": zh.clean}
NOTHING_LEFT = Reason("nothing_left", "清洗后为空", "nothing left after normalization")


@final
class Normalizer:
    """Normalises the texts of one source, and keeps what its rules changed until it is taken."""

    def __init__(self, how: Normalization, *, source: str) -> None:
        self.how: Normalization = how
        self._source = source
        self._changed: dict[str, tuple[Reason, str, str]] = {}

    def clean(self, text: str) -> str:
        """The text in its one form; with `none`, as it is."""
        if self.how == "none":
            return text
        return CLEAN[self.how](text, on_change=self._note)

    def take_changes(self, place: str) -> Iterator[Change]:
        """What was changed since the last call, each reason once, as of the record at a place."""
        changed, self._changed = self._changed, {}
        for reason, before, after in changed.values():
            yield Change(reason, self._source, place, before, after)

    def _note(self, reason: Reason, before: str, after: str) -> None:
        self._changed.setdefault(reason.key, (reason, before, after))


def normalize_record(record: Record, *, normalizer: Normalizer) -> Iterator[Record | Change | Drop]:
    """The changes that the rules make, then the record, or a drop where no text is left of it."""
    if normalizer.how == "none":
        yield record
        return
    cleaned = _clean(record, normalizer)
    if (record.question and not cleaned.question) or (record.answer and not cleaned.answer):
        tuple(normalizer.take_changes(record.place))
        shown = record.answer if cleaned.question else record.question
        yield Drop(NOTHING_LEFT, record.source, record.place, shown)
        return
    yield from normalizer.take_changes(record.place)
    yield cleaned


def _clean(record: Record, normalizer: Normalizer) -> Record:
    history = tuple(map(normalizer.clean, record.history))
    question = normalizer.clean(record.question)
    group = record.group
    if normalizer.how == "zh" and not record.images:
        group = normalise(history[0] if history else question)
    return dataclasses.replace(
        record,
        question=question,
        answer=normalizer.clean(record.answer),
        history=history,
        system=normalizer.clean(record.system),
        rejected=normalizer.clean(record.rejected),
        group=group,
    )
