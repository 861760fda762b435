"""A queue in files: lines that outlive their process, and wait until something takes them.

A line is accepted once the kernel has it: it outlives a kill of the process then, and after `sync`
a loss of power as well. Several processes may use one folder; each writes files of its own, and
takes over those of processes that are gone. Bounded by bytes. Left out: what the lines mean.
"""

import os
import threading
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from limbeck.contracts.artifacts import sync_folder

SEGMENT_BYTES = 1 << 20
"""A file that has grown so far is followed by another."""
PEEK_BYTES = 4 << 20
"""Most that is read at once, unless a single line is longer."""
DIGITS = 20


class SpoolFullError(OSError):
    """As many bytes wait as may."""


@dataclass(slots=True)
class _Segment:
    path: Path
    num_bytes: int
    """What stands in the file, whole lines only where it is ours."""
    offset: int = 0
    """Up to here it was taken."""


class Spool:
    """Lines in the order in which they came, oldest first; one thread takes, any may append."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._segments: deque[_Segment] = deque()
        self._locks: list[FileLock] = []
        self._owner = ""
        self._count = 0
        self._descriptor = -1
        self._is_dirty = False
        self._closed_descriptors: list[int] = []
        """Of files that are full; `sync` closes them, so that no `append` waits for a disk."""
        self._waiting_bytes = 0

    @property
    def waiting_bytes(self) -> int:
        """How much waits."""
        return self._waiting_bytes

    def open(self) -> None:
        """Take over what processes left that are gone; call it once, before all else.

        Raises:
            OSError: the folder cannot be made or written.
        """
        with self._lock:
            self._open()

    def append(self, line: bytes) -> None:
        """Accept a line, with its end.

        Raises:
            OSError: it is not accepted: no room, as the limit or the disk has it.
        """
        with self._lock:
            if self._waiting_bytes + len(line) > self._max_bytes:
                raise SpoolFullError(f"{self._waiting_bytes:,} bytes wait already")
            self._open()
            if self._descriptor < 0 or self._segments[-1].num_bytes >= SEGMENT_BYTES:
                self._begin_segment()
            segment = self._segments[-1]
            try:
                written = os.write(self._descriptor, line)
                if written < len(line):
                    raise OSError("the disk took a part of a line only")
            except OSError:
                self._take_back(segment)
                raise
            segment.num_bytes += len(line)
            self._waiting_bytes += len(line)
            self._is_dirty = True

    def peek(self, max_lines: int) -> list[bytes]:
        """The oldest lines, with their ends; they stay until `advance`.

        Raises:
            OSError: they cannot be read.
        """
        while True:
            with self._lock:
                if not self._segments:
                    return []
                segment, end = self._segments[0], self._segments[0].num_bytes
            lines = _read_lines(segment, end=end, max_lines=max_lines)
            with self._lock:
                is_own_last = self._descriptor >= 0 and segment is self._segments[-1]
                if lines or is_own_last:
                    return lines
                self._drop(segment)  # nothing but the torn end of a process that lost its power

    def advance(self, lines: list[bytes]) -> None:
        """Let go of what `peek` gave: it is safe elsewhere now."""
        num_bytes = sum(map(len, lines))
        with self._lock:
            segment = self._segments[0]
            segment.offset += num_bytes
            self._waiting_bytes -= num_bytes
            if segment.offset < segment.num_bytes:
                return
            if self._descriptor >= 0 and segment is self._segments[-1]:
                os.ftruncate(self._descriptor, 0)  # nothing of what was taken stays on the disk
                segment.num_bytes = segment.offset = 0
            else:
                self._drop(segment)

    def sync(self) -> None:
        """Have what was accepted outlive a loss of power; `append` does not wait meanwhile.

        Raises:
            OSError: the disk refuses.
        """
        with self._lock:
            if not self._is_dirty:
                return
            own = [os.dup(self._descriptor)] if self._descriptor >= 0 else []
            self._is_dirty = False
            descriptors, self._closed_descriptors = [*self._closed_descriptors, *own], []
        with ExitStack() as files:
            for descriptor in descriptors:
                files.callback(os.close, descriptor)
            for descriptor in descriptors:
                os.fsync(descriptor)
        sync_folder(self._folder)

    def close(self) -> None:
        """Leave what still waits for the next process, safe from a loss of power."""
        try:
            self.sync()
        finally:
            with self._lock:
                self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if not self._segments[-1].num_bytes:
                self._drop(self._segments[-1])
        for lock in self._locks:
            lock.release()
            if not any(self._folder.glob(f"{Path(lock.lock_file).stem}.*.spool")):
                Path(lock.lock_file).unlink(missing_ok=True)
        self._locks = []

    def _open(self) -> None:
        if self._owner:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = f"{time.time_ns():0{DIGITS}d}-{os.getpid()}"
        own_lock = FileLock(self._folder / f"{owner}.lock")
        own_lock.acquire(timeout=0)
        self._owner = owner
        self._locks.append(own_lock)
        for name in sorted({path.name.partition(".")[0] for path in self._folder.glob("*.spool")}):
            lock = FileLock(self._folder / f"{name}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue  # its process lives, and takes it itself
            self._locks.append(lock)
            for path in sorted(self._folder.glob(f"{name}.*.spool")):
                self._segments.append(_Segment(path, path.stat().st_size))
        self._waiting_bytes = sum(segment.num_bytes for segment in self._segments)

    def _begin_segment(self) -> None:
        path = self._folder / f"{self._owner}.{self._count:06d}.spool"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._count += 1
        if self._descriptor >= 0:
            self._closed_descriptors.append(self._descriptor)
        self._descriptor = descriptor
        self._segments.append(_Segment(path, 0))

    def _take_back(self, segment: _Segment) -> None:
        """Cut a line off that was written in part; where even that fails, begin another file."""
        try:
            os.ftruncate(self._descriptor, segment.num_bytes)
        except OSError:
            os.close(self._descriptor)
            self._descriptor = -1

    def _drop(self, segment: _Segment) -> None:
        self._waiting_bytes -= segment.num_bytes - segment.offset
        self._segments.remove(segment)
        segment.path.unlink(missing_ok=True)


def _read_lines(segment: _Segment, *, end: int, max_lines: int) -> list[bytes]:
    lines: list[bytes] = []
    room, left = PEEK_BYTES, end - segment.offset
    with segment.path.open("rb") as file:
        file.seek(segment.offset)
        while len(lines) < max_lines and left > 0 and room > 0:
            line = file.readline(left)
            if not line.endswith(b"\n"):
                break
            lines.append(line)
            left -= len(line)
            room -= len(line)
    return lines
