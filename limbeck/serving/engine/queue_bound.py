"""How many requests may wait: a queue bounded in time, not only in number.

Under overload a queue that is bounded in number alone is always full, and every answer comes as
late as the longest wait (Nichols and Jacobson 2012, "Controlling queue delay"). Left out: who
waits.
"""

from typing import final

MAX_ENDS = 256
"""So many ends are remembered; older ones fade."""


@final
class QueueBound:
    """Learns at which pace rows become free, and from it how long a request would wait."""

    def __init__(self, *, num_slots: int, max_waiting: int, max_wait_seconds: float) -> None:
        self._num_slots = num_slots
        self._max_waiting = max_waiting
        self._max_wait_seconds = max_wait_seconds
        self._last_end = 0.0
        self._seconds = 0.0
        self._ends = 0.0

    def note_end(self, now: float, *, others_wait: bool) -> None:
        """A request has ended; only while others wait does the time since the last one count."""
        if others_wait and self._last_end:
            self._seconds += now - self._last_end
            self._ends += 1
        self._last_end = now if others_wait else 0.0
        if self._ends >= MAX_ENDS:
            self._seconds, self._ends = self._seconds / 2, self._ends / 2

    def is_reached(self, num_waiting: int) -> bool:
        """Whether one more would be too many.

        Half as many as there are rows may wait, for half the length of an answer, however long one
        takes.
        """
        if num_waiting >= self._max_waiting:
            return True
        expected = num_waiting * self._seconds / self._ends if self._ends else 0.0
        return num_waiting >= self._num_slots / 2 and expected > self._max_wait_seconds
