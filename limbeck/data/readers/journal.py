"""What people said of a service's answers, as records: corrections, and answers found good.

Reads what `limbeck journal export` writes, never the journal itself: a corpus is made of files that
do not change under it. Left out: answers that nobody judged, which are what the model says already.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

from typing_extensions import override

from limbeck.contracts.errors import DataError
from limbeck.contracts.exchange import (
    Exchange,
    Feedback,
    last_correction,
    last_thumbs,
    read_exchange,
    read_feedback,
)
from limbeck.contracts.leaks import normalise
from limbeck.contracts.records import Drop, Note, Reason, Record
from limbeck.data.packs.schema import Pack
from limbeck.data.readers.base import SHOWN_CHARS, ReaderItem
from limbeck.data.readers.json_text import parse_json
from limbeck.data.readers.text_files import Line, TextFileReaderConfig

NOT_AN_EXCHANGE = Reason("not_an_exchange", "不是对话记录", "not an exchange of a journal")
NOT_JUDGED = Reason("not_judged", "无人评价", "nobody judged it", counts_as="choice")
FOUND_BAD = Reason("found_bad", "被评为差", "found bad, not corrected", counts_as="choice")
NO_MODEL = Reason("no_model", "非模型作答", "a rule or a stored fact answered", counts_as="choice")
NO_ANSWER = Reason("no_answer", "未作答", "was not answered", counts_as="choice")


class Config(TextFileReaderConfig):
    """Corrected and approved answers of a service, from a file of `limbeck journal export`."""

    free_text: ClassVar[bool] = True

    kind: Literal["journal"] = "journal"
    judged_by: Literal["reviewers", "anyone"] = "reviewers"
    """Whose corrections and thumbs count. `anyone`: users too, whom nobody has checked."""
    approved: Literal["take", "leave"] = "take"
    """Whether answers with thumbs up are taken as they are, beside corrections."""

    @override
    def read(self, *, pack: Pack, seed: int) -> Iterator[ReaderItem]:
        num_corrected = num_approved = 0
        for line in self.lines(self.path):
            if not isinstance(line, Line):
                yield line
                continue
            item, is_corrected = self._read_line(line)
            if isinstance(item, Record):
                num_corrected += is_corrected
                num_approved += not is_corrected
            yield item
        if not num_corrected + num_approved:
            raise DataError(
                "holds no answer that was corrected or approved by "
                f"{self.judged_by}; review some, export again, or set `judged_by: anyone`",
                path=self.path,
            )
        yield Note("corrected_answers", num_corrected)
        yield Note("approved_answers", num_approved)

    def _read_line(self, line: Line) -> tuple[Record | Drop, bool]:
        """What a line gives, and whether its answer is a correction."""
        place = f"{self.path.name}:{line.number}"
        try:
            row = parse_json(line.text)
            exchange = read_exchange(row["exchange"])
            feedback = [read_feedback(item) for item in row["feedback"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            shown = f"{line.text[:SHOWN_CHARS]} ({type(error).__name__}: {error})"
            return Drop(NOT_AN_EXCHANGE, self.label, place, shown), False
        if self.judged_by == "reviewers":
            feedback = [item for item in feedback if item.role == "reviewer"]
        correction = last_correction(feedback)
        if correction is None and (reason := self._find_fault(exchange, feedback)):
            return Drop(reason, self.label, place, exchange.question[:SHOWN_CHARS]), False
        return self._make_record(exchange, correction, place), correction is not None

    def _find_fault(self, exchange: Exchange, feedback: list[Feedback]) -> Reason | None:
        """Why an answer that nobody corrected is not taken; None where it is."""
        thumbs = last_thumbs(feedback)
        if thumbs == "down":
            return FOUND_BAD
        if exchange.status != "answered":
            return NO_ANSWER
        if not exchange.is_machine_made:  # the corpus has the domain's facts, without citations
            return NO_MODEL
        return NOT_JUDGED if thumbs == "none" or self.approved == "leave" else None

    def _make_record(self, exchange: Exchange, correction: Feedback | None, place: str) -> Record:
        # The group is what was asked, so that the same question of two people stays together, and
        # a question of evaluation is found in it.
        return Record(
            id=f"{self.label}:{exchange.id}",
            question=exchange.question,
            answer=correction.corrected_answer if correction else exchange.answer,
            group=normalise("".join((*exchange.history, exchange.question))),
            source=self.label,
            history=exchange.history,
            system=exchange.system,
            place=place,
            rejected=exchange.answer if correction and _is_models(exchange) else "",
        )


def _is_models(exchange: Exchange) -> bool:
    """Whether the answer is one that a model gave."""
    return exchange.status == "answered" and exchange.is_machine_made
