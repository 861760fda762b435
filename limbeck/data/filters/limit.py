"""At most so many records of each source."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Literal

from typing_extensions import override

from limbeck.contracts.records import Reason, Record, Source
from limbeck.data.filters.base import FilterConfig, FilterContext

OVER_LIMIT = Reason("over_limit", "超出上限", "over the limit", counts_as="choice")


class Limit(FilterConfig):
    """No more records of a source than its `max_records`: those with the least hashes."""

    kind: Literal["limit"] = "limit"

    @override
    def applies_to(self, source: Source) -> bool:
        return True

    @override
    def run(self, records: Iterable[Record], *, context: FilterContext) -> Iterator[Record]:
        records = list(records)
        by_source: dict[str, list[Record]] = {}
        for record in records:
            by_source.setdefault(record.source, []).append(record)
        left_out: set[str] = set()
        for label, members in by_source.items():
            count = context.sources[label].max_records
            if len(members) > count:
                order = sorted(members, key=lambda item: _hash(f"{context.seed}:{item.id}"))
                left_out.update(record.id for record in order[count:])
        for record in records:
            if record.id in left_out:
                context.log.drop_record(record, reason=OVER_LIMIT)
            else:
                yield record


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
