"""The route that takes what readers make of answers."""

from datetime import UTC, datetime

from fastapi import FastAPI, Request

from limbeck.contracts.exchange import Feedback
from limbeck.serving.api.errors import ApiError, errors
from limbeck.serving.api.schema import FeedbackRequest
from limbeck.serving.journal.writer import Journal


def add_feedback_route(app: FastAPI, journal: Journal | None) -> None:
    """Feedback goes to the journal; without one it is refused."""

    @app.post("/v1/feedback", responses=errors(400, 401, 403, 413, 415, 422, 503))
    async def take_feedback(body: FeedbackRequest, request: Request) -> dict[str, str]:
        """Keep what a reader makes of an answer: a thumb, a corrected answer, a comment."""
        if journal is None:
            raise ApiError(503, "this server keeps no journal, so feedback would be lost")
        entry = request.state.key
        feedback = Feedback(
            id=f"feedback-{request.state.note.unique}",
            exchange_id=body.id,
            time=datetime.now(UTC),
            by=entry.name if entry is not None else "page",
            thumbs=body.rating or "none",
            corrected_answer=body.corrected,
            comment=body.comment,
        )
        if not journal.put(feedback):
            raise ApiError(503, "the journal cannot take it now", retry_after=5)
        return {"id": feedback.id, "status": "recorded"}
