"""The least that any text needs: code, mathematics and Markdown keep every sign."""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Literal

from typing_extensions import override

from limbeck.contracts.records import Record, Source
from limbeck.data.filters.base import FilterConfig, FilterContext

LINE_END = re.compile(r"[ \t]*(?:\r\n|\r|\n)")
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")


class NormalizeLight(FilterConfig):
    """Composed characters, one kind of line end, no control characters."""

    kind: Literal["normalize_light"] = "normalize_light"

    @override
    def applies_to(self, source: Source) -> bool:
        return source.free_text

    @override
    def run(self, records: Iterable[Record], *, context: FilterContext) -> Iterator[Record]:
        for record in records:
            if self.applies_to(context.sources[record.source]):
                record = dataclasses.replace(
                    record,
                    question=clean(record.question),
                    answer=clean(record.answer),
                    history=tuple(map(clean, record.history)),
                    rejected=clean(record.rejected),
                )
            yield record


def clean(text: str) -> str:
    """The text with its signs and line breaks as they are; cleaning it again changes nothing."""
    text = unicodedata.normalize("NFC", CONTROLS.sub("", text))
    return LINE_END.sub("\n", text).strip()
