"""`/v1/review`: what a person should judge, newest first, and the verdicts of reviewers.

Only keys of the scope `review` get here, as it shows what everybody asked (redacted, as stored).
"""

from typing import Annotated, Literal

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from limbeck.contracts.errors import JournalError
from limbeck.contracts.exchange import Status, Thumbs
from limbeck.serving.api.errors import ApiError, errors
from limbeck.serving.journal.queries import ExchangeFilter, ExchangeRow, Review, ReviewReason
from limbeck.serving.journal.review import ReviewQueue, ReviewVerdict, make_verdict

MAX_PAGE = 100
RETRY_SECONDS = 5.0


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReviewQuery(_Body):
    """Which part of the queue."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 20
    before: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """`next` of the page before; 0: the first page."""
    reason: list[ReviewReason] = []
    """Any of these; none given: all."""
    tier: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=64)] = []
    max_confidence: Annotated[float, Field(ge=0, le=1)] = Review.max_confidence
    """Answers less sure than this wait for a person."""


class Opinion(_Body):
    """What somebody said of an answer."""

    by: str
    role: Literal["user", "reviewer"]
    rating: Thumbs
    corrected: str
    comment: str


class ReviewItem(_Body):
    """An exchange that waits, without what identifies a person."""

    id: str
    seq: int
    """Its place in the journal."""
    time: str
    reasons: list[ReviewReason]
    requested_model: str
    tier: str
    route_reason: str
    model_key: str
    status: Status
    confidence: float | None
    system: str
    history: list[str]
    question: str
    answer: str
    feedback: list[Opinion]


class ReviewPage(_Body):
    """A part of the queue, newest first."""

    object: Literal["list"] = "list"
    data: list[ReviewItem]
    next: int | None
    """For `before`; null where nothing older waits."""


class VerdictRequest(_Body):
    """`POST /v1/review`: what a reviewer decides of one answer."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    """Of the answer."""
    verdict: ReviewVerdict
    """`accept`: it is right; `correct`: `corrected` is; `dismiss`: nothing is to be learnt."""
    corrected: Annotated[str, Field(max_length=20_000)] = ""
    comment: Annotated[str, Field(max_length=20_000)] = ""

    @model_validator(mode="after")
    def _check_verdict(self) -> "VerdictRequest":
        if (self.verdict == "correct") != bool(self.corrected.strip()):
            raise ValueError("corrected: is given with the verdict correct, and with no other")
        return self


class VerdictReceipt(_Body):
    """That a verdict is in the journal."""

    id: str
    status: Literal["recorded"] = "recorded"


def add_review_routes(app: FastAPI, reviews: ReviewQueue | None) -> None:
    """Adds them; without a journal they say that there is none."""

    @app.get("/v1/review", responses=errors(400, 401, 403, 422, 503))
    def read_queue(query: Annotated[ReviewQuery, Query()]) -> ReviewPage:
        """Answers that wait for a person: found bad, corrected, unknown, withheld, unsure."""
        review = Review(max_confidence=query.max_confidence, reasons=tuple(query.reason))
        try:
            found = _need(reviews).read(
                review,
                choice=ExchangeFilter(tiers=tuple(query.tier)),
                limit=query.limit + 1,
                before_seq=query.before,
            )
        except JournalError as error:
            raise ApiError(503, str(error), retry_after=RETRY_SECONDS) from None
        shown = found[: query.limit]
        return ReviewPage(
            data=[_describe(row, reasons) for row, reasons in shown],
            next=shown[-1][0].seq if len(found) > len(shown) else None,
        )

    @app.post("/v1/review", responses=errors(400, 401, 403, 404, 413, 415, 422, 503))
    def take_verdict(body: VerdictRequest, request: Request) -> VerdictReceipt:
        """Keep a reviewer's verdict; the answer leaves the queue."""
        queue = _need(reviews)
        try:
            found = queue.find(body.id)
        except JournalError as error:
            raise ApiError(503, str(error), retry_after=RETRY_SECONDS) from None
        if found is None:
            raise ApiError(404, f"the journal has no answer {body.id!r}", param="id")
        entry = request.state.key
        verdict = make_verdict(
            body.verdict,
            exchange_id=body.id,
            entry_id=f"review-{request.state.note.unique}",
            by=entry.name if entry is not None else "page",
            corrected=body.corrected,
            comment=body.comment,
        )
        if not queue.put(verdict):
            raise ApiError(503, "the journal cannot take it now", retry_after=RETRY_SECONDS)
        return VerdictReceipt(id=verdict.id)


def _need(reviews: ReviewQueue | None) -> ReviewQueue:
    if reviews is None:
        raise ApiError(503, "this server keeps no journal (--journal none)", code="no_journal")
    return reviews


def _describe(row: ExchangeRow, reasons: tuple[ReviewReason, ...]) -> ReviewItem:
    found = row.exchange
    return ReviewItem(
        id=found.id,
        seq=row.seq,
        time=found.time.isoformat(timespec="seconds"),
        reasons=list(reasons),
        requested_model=found.requested_model,
        tier=found.tier,
        route_reason=found.route_reason,
        model_key=found.model_key,
        status=found.status,
        confidence=found.confidence,
        system=found.system,
        history=list(found.history),
        question=found.question,
        answer=found.answer,
        feedback=[
            Opinion(
                by=item.by,
                role=item.role,
                rating=item.thumbs,
                corrected=item.corrected_answer,
                comment=item.comment,
            )
            for item in row.feedback
        ],
    )
