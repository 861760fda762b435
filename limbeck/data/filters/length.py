"""Free text that is too short or too long."""

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import PositiveInt, model_validator
from typing_extensions import override

from limbeck.contracts.records import Reason, Record, Source
from limbeck.data.filters.base import FilterConfig, FilterContext

QUESTION_TOO_SHORT = Reason("question_too_short", "问题过短", "question too short")
QUESTION_TOO_LONG = Reason("question_too_long", "问题过长", "question too long")
ANSWER_TOO_SHORT = Reason("answer_too_short", "回答过短", "answer too short")
ANSWER_TOO_LONG = Reason("answer_too_long", "回答过长", "answer too long")


class Length(FilterConfig):
    """Questions and answers of the given numbers of characters."""

    kind: Literal["length"] = "length"
    min_answer_chars: PositiveInt = 15
    max_answer_chars: PositiveInt = 200
    min_question_chars: PositiveInt = 2
    max_question_chars: PositiveInt = 400

    @model_validator(mode="after")
    def _check_order(self) -> "Length":
        if self.min_answer_chars > self.max_answer_chars:
            raise ValueError("min_answer_chars is above max_answer_chars: nothing could pass")
        if self.min_question_chars > self.max_question_chars:
            raise ValueError("min_question_chars is above max_question_chars")
        return self

    @override
    def applies_to(self, source: Source) -> bool:
        return source.free_text

    @override
    def run(self, records: Iterable[Record], *, context: FilterContext) -> Iterator[Record]:
        for record in records:
            reason = None
            if self.applies_to(context.sources[record.source]):
                reason = self.find_misfit(record)
            if reason:
                context.log.drop_record(record, reason=reason)
            else:
                yield record

    def find_misfit(self, record: Record) -> Reason | None:
        """Why a record is too short or too long; None where it fits."""
        if len(record.question) < self.min_question_chars:
            return QUESTION_TOO_SHORT
        if len(record.question) > self.max_question_chars:
            return QUESTION_TOO_LONG
        if len(record.answer) < self.min_answer_chars:
            return ANSWER_TOO_SHORT
        return ANSWER_TOO_LONG if len(record.answer) > self.max_answer_chars else None
