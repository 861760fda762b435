"""Entities marked in every record, and a specialty where they point to one."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Literal

from typing_extensions import override

from limbeck.contracts.records import Record, Source
from limbeck.data.filters.base import FilterConfig, FilterContext
from limbeck.data.filters.entities import guess_specialty


class MarkEntities(FilterConfig):
    """Every record, with the names of the lexicon that stand in it; none is dropped."""

    kind: Literal["mark_entities"] = "mark_entities"

    @override
    def applies_to(self, source: Source) -> bool:
        return True

    @override
    def run(self, records: Iterable[Record], *, context: FilterContext) -> Iterator[Record]:
        for record in records:
            entities = context.lexicon.mark(record)
            specialty = record.specialty or guess_specialty(entities, pack=context.pack)
            yield dataclasses.replace(record, entities=entities, specialty=specialty)
