"""Records that ask what evaluation asks: never trained on."""

from collections.abc import Iterable, Iterator
from typing import Literal

from typing_extensions import override

from limbeck.contracts.leaks import LeakIndex
from limbeck.contracts.records import Reason, Record, Source
from limbeck.data.filters.base import FilterConfig, FilterContext

IN_EVALUATION = Reason("in_evaluation", "与评测重合", "asked in evaluation")


class InEvaluation(FilterConfig):
    """Records whose question, image or group no evaluation asks about.

    Records made from facts are not checked: their source keeps questions apart, and a leak there
    stops the stage.
    """

    kind: Literal["in_evaluation"] = "in_evaluation"

    @override
    def applies_to(self, source: Source) -> bool:
        return source.free_text

    @override
    def run(self, records: Iterable[Record], *, context: FilterContext) -> Iterator[Record]:
        records = list(records)  # only then are all questions known
        asked = LeakIndex(context.questions)
        for record in records:
            if self.applies_to(context.sources[record.source]) and asked.find(record):
                context.log.drop_record(record, reason=IN_EVALUATION)
            else:
                yield record
