"""The journal as a service uses it: `put` never waits for the database, and one thread writes.

A row goes to the spool first, where a kill of this process cannot reach it, and from there to the
database. So a database that is full, locked or dead changes one thing only: more rows wait. Where
the spool takes nothing either, rows wait in memory; beyond that they are dropped, and counted.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from limbeck.contracts.exchange import Exchange, Feedback
from limbeck.serving.journal.config import Config
from limbeck.serving.journal.database import describe_error, parse_url, show_url
from limbeck.serving.journal.entries import (
    DamagedLineError,
    JournalEntry,
    make_entry,
    read_line,
    withhold,
    write_line,
)
from limbeck.serving.journal.spool import Spool
from limbeck.serving.journal.store import JournalStore

logger = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.05
GATHER_SECONDS = 0.2
"""So long rows gather for one commit, whose cost is nearly the same for one row and for fifty."""
SYNC_SECONDS = 0.25
"""So long may a row wait, while the database does not answer, until a loss of power spares it."""
REFUSED_NAME = "refused.jsonl"


JournalState = Literal["ok", "spooling", "dropping"]
"""`spooling`: the database does not take rows, which wait; `dropping`: they are lost."""


@dataclass(frozen=True)
class Health:
    """How a journal fares."""

    state: JournalState
    written_rows: int
    """In the database, by this process."""
    waiting_bytes: int
    waiting_memory_rows: int
    """Those that the spool did not take; a kill of this process loses them."""
    dropped_rows: int
    refused_rows: int
    """Those that the database will never take; they are in `refused.jsonl` of the spool."""
    unredacted_rows: int
    """Those whose texts were withheld, because redaction failed."""
    last_error: str
    """'' where the last attempt succeeded."""


class Journal:
    """Takes exchanges and feedback; close it at the end, or use it in a `with` statement."""

    def __init__(self, config: Config, *, redact: Callable[[str], str] = str) -> None:
        """Starts to write what an earlier process left.

        Raises:
            JournalError: the URL names no database that a journal can lie in.
        """
        url = parse_url(config.url)
        self._config = config
        self._redact = redact
        self._name = show_url(url)
        self._store = JournalStore(url, timeout_seconds=config.timeout_seconds)
        self._spool = Spool(config.spool, max_bytes=config.max_spool_bytes)
        self._memory: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._idle = threading.Event()
        self._stop = threading.Event()
        self._is_dropping = False
        self._error = self._spool_error = ""
        self._attempt_began = 0.0
        self._written = self._dropped = self._refused = self._unredacted = 0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        try:
            self._spool.open()
        except OSError as error:
            self._note_spool_error(error)
        self._thread.start()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def config(self) -> Config:
        """Where it lies."""
        return self._config

    def put(self, item: Exchange | Feedback) -> bool:
        """Whether the row is kept; it waits for no database and raises nothing.

        In the state `ok` and in `spooling` a kept row outlives a kill of this process.
        """
        line = self._encode(item)
        if line is None:
            return False
        with self._lock:
            self._idle.clear()
            self._memory.append(line)
            self._move_to_spool()
            is_kept = len(self._memory) <= self._config.max_memory_rows
            if not is_kept:
                self._memory.pop()
        if is_kept:
            self._is_dropping = self._is_dropping and bool(self._memory)
        else:
            self._note_drop(self._spool_error)
        self._wake.set()
        return is_kept

    def health(self) -> Health:
        """How it fares now; cheap enough for each scrape."""
        began = self._attempt_began
        is_stuck = began > 0 and time.monotonic() - began > self._config.timeout_seconds
        waits = self._error or self._memory or is_stuck
        return Health(
            state="dropping" if self._is_dropping else "spooling" if waits else "ok",
            written_rows=self._written,
            waiting_bytes=self._spool.waiting_bytes,
            waiting_memory_rows=len(self._memory),
            dropped_rows=self._dropped,
            refused_rows=self._refused,
            unredacted_rows=self._unredacted,
            last_error=self._error or self._spool_error,
        )

    def flush(self, timeout_seconds: float) -> bool:
        """Whether all that was put before is in the database within that time."""
        self._hurry.set()
        self._wake.set()
        is_done = self._idle.wait(timeout_seconds)
        self._hurry.clear()
        return is_done

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Write what waits, or leave it in the spool for the next process."""
        if not self._error:
            self.flush(timeout_seconds)
        self._stop.set()
        self._hurry.set()
        self._wake.set()
        self._thread.join(timeout_seconds)
        with self._lock:
            self._move_to_spool()
            if self._memory:
                self._note_drop(f"closed with {len(self._memory)} rows that nothing took")
                self._dropped += len(self._memory) - 1
        try:
            self._spool.close()
        except OSError as error:
            self._note_spool_error(error)
        self._store.disconnect()

    def _encode(self, item: Exchange | Feedback) -> bytes | None:
        try:
            try:
                return write_line(make_entry(item, redact=self._redact))
            except Exception as error:
                self._unredacted += 1
                logger.error("journal: redaction failed (%s); no text kept", type(error).__name__)
                return write_line(withhold(item))
        except Exception as error:
            self._note_drop(f"a row cannot be stored ({type(error).__name__})")
            return None

    def _move_to_spool(self) -> None:
        """What waits in memory goes to the spool, oldest first, as far as that takes it."""
        try:
            while self._memory:
                self._spool.append(self._memory[0])
                self._memory.popleft()
            self._spool_error = ""
        except OSError as error:
            self._note_spool_error(error)

    def _run(self) -> None:
        pause = FIRST_RETRY_SECONDS
        while not self._stop.is_set():
            self._wake.clear()
            try:
                while self._write_batch() and not self._stop.is_set():
                    pass
            except Exception as error:
                self._note_failure(error)
                self._wait(pause)
                pause = min(2 * pause, self._config.max_retry_seconds)
            else:
                pause = FIRST_RETRY_SECONDS
                if self._is_written():
                    self._wake.wait()
                self._hurry.wait(GATHER_SECONDS)
        self._sync()

    def _wait(self, seconds: float) -> None:
        """Until the next attempt; what comes meanwhile is made safe from a loss of power."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stop.is_set():
            self._sync()
            self._stop.wait(min(left, SYNC_SECONDS))

    def _is_written(self) -> bool:
        """Whether nothing waits; who waits for that in `flush` goes on."""
        with self._lock:
            waits = bool(self._memory or self._spool.waiting_bytes)
            if not waits:
                self._idle.set()
        return not waits

    def _write_batch(self) -> bool:
        """Whether the batch was full, so that another one is due at once."""
        with self._lock:
            self._move_to_spool()
        lines = self._spool.peek(self._config.batch_rows)
        if lines:
            self._write(lines)
            self._spool.advance(lines)
            return len(lines) == self._config.batch_rows
        with self._lock:
            held = list(islice(self._memory, self._config.batch_rows))
        self._write(held)
        with self._lock:
            done = set(held)
            self._memory = deque(line for line in self._memory if line not in done)
        return len(held) == self._config.batch_rows

    def _write(self, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        entries: list[JournalEntry] = []
        for line in lines:
            try:
                entries.append(read_line(line))
            except DamagedLineError as error:
                self._refuse(line, error)
        self._attempt_began = time.monotonic()
        try:
            self._append(entries)
        finally:
            self._attempt_began = 0.0
        if self._error:
            logger.warning("journal: %s takes rows again", self._name)
            self._error = ""

    def _append(self, entries: Sequence[JournalEntry]) -> None:
        """Write events; where one of them cannot be written, all others and this to a file."""
        if not entries:
            return
        try:
            self._written += self._store.append(entries)
        except Exception as error:
            if not self._store.is_fault_of_row(error):
                raise
            if len(entries) == 1:
                self._refuse(write_line(entries[0]), error)
                return
            for entry in entries:
                self._append([entry])

    def _refuse(self, line: bytes, error: Exception) -> None:
        """Keep a line that the database will never take, in a file of its own.

        Raises:
            OSError: it cannot be kept there, so it has to wait.
        """
        with (self._config.spool / REFUSED_NAME).open("ab") as file:
            file.write(line if line.endswith(b"\n") else line + b"\n")
        self._refused += 1
        logger.error("journal: a row is refused (%s); see %s", describe_error(error), REFUSED_NAME)

    def _sync(self) -> None:
        try:
            self._spool.sync()
        except OSError as error:
            self._note_spool_error(error)

    def _note_failure(self, error: Exception) -> None:
        if not self._error:
            logger.error(
                "journal: %s takes no rows (%s); they wait in %s",
                self._name,
                describe_error(error),
                self._config.spool,
            )
        self._error = describe_error(error)
        self._store.disconnect()

    def _note_spool_error(self, error: OSError) -> None:
        if not self._spool_error:
            logger.error("journal: %s takes no rows (%s)", self._config.spool, error)
        self._spool_error = describe_error(error)

    def _note_drop(self, reason: str) -> None:
        self._is_dropping = True
        self._dropped += 1
        if self._dropped & (self._dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th...
            logger.critical("journal: %d rows are lost (%s)", self._dropped, reason)
