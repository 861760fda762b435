"""The review queue of a running service: what a person should judge, and the verdicts.

A verdict is one more feedback of the chain; no row is changed. Left out: what belongs to the queue
(`queries`), and who may see it (`api`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from limbeck.contracts.errors import JournalError
from limbeck.contracts.exchange import Feedback, Thumbs
from limbeck.serving.journal.database import describe_error, open_database, parse_url
from limbeck.serving.journal.queries import (
    ExchangeFilter,
    ExchangeRow,
    Review,
    ReviewReason,
    read_page,
    read_review_queue,
)
from limbeck.serving.journal.schema import ledger
from limbeck.serving.journal.writer import Journal

ReviewVerdict = Literal["accept", "correct", "dismiss"]
"""The answer is right; another one is; nothing is to be learnt from it."""
THUMBS: Mapping[ReviewVerdict, Thumbs] = {"accept": "up", "correct": "down", "dismiss": "none"}
FLUSH_SECONDS = 2.0
"""So long a verdict waits to be in the database, where the next page of the queue is read."""


def make_verdict(
    verdict: ReviewVerdict,
    *,
    exchange_id: str,
    entry_id: str,
    by: str,
    corrected: str,
    comment: str,
) -> Feedback:
    """The feedback that says it."""
    return Feedback(
        id=entry_id,
        exchange_id=exchange_id,
        time=datetime.now(UTC),
        by=by,
        role="reviewer",
        thumbs=THUMBS[verdict],
        corrected_answer=corrected,
        comment=comment,
    )


@final
class ReviewQueue:
    """What waits in a journal that a service writes; reading waits for no writer."""

    def __init__(self, journal: Journal) -> None:
        config = journal.config
        self._journal = journal
        self._url = parse_url(config.url)
        self._engine = open_database(self._url, timeout_seconds=config.timeout_seconds)
        self._has_tables = False

    def read(
        self, review: Review, *, choice: ExchangeFilter, limit: int, before_seq: int
    ) -> tuple[tuple[ExchangeRow, tuple[ReviewReason, ...]], ...]:
        """The newest exchanges that wait, and why each does; none where nothing was ever kept.

        Raises:
            JournalError: the database does not answer.
        """
        try:
            if not self._is_made():
                return ()
            return read_review_queue(
                self._engine, review, choice=choice, limit=limit, before_seq=before_seq
            )
        except SQLAlchemyError as error:
            raise _unreadable(error) from None

    def find(self, exchange_id: str) -> ExchangeRow | None:
        """An exchange; None where there is none, or it is forgotten.

        Raises:
            JournalError: the database does not answer.
        """
        try:
            if not self._is_made():
                return None
            found = read_page(self._engine, ExchangeFilter(ids=(exchange_id,)), limit=1)
        except SQLAlchemyError as error:
            raise _unreadable(error) from None
        return found[0] if found else None

    def put(self, verdict: Feedback) -> bool:
        """Whether it is kept; what is read afterwards knows of it, if the database takes it."""
        is_kept = self._journal.put(verdict)
        if is_kept and self._journal.health().state == "ok":
            self._journal.flush(FLUSH_SECONDS)
        return is_kept

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()

    def _is_made(self) -> bool:
        """Whether something was ever kept; to look must not make a file that others can read."""
        if self._has_tables:
            return True
        is_file = self._url.get_backend_name() == "sqlite"
        if is_file and not Path(self._url.database or "").is_file():
            return False
        self._has_tables = sa.inspect(self._engine).has_table(ledger.name)
        return self._has_tables


def _unreadable(error: SQLAlchemyError) -> JournalError:
    return JournalError(f"the journal cannot be read now ({describe_error(error)})")
