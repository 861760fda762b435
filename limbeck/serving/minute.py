"""Requests and tokens of the latest minute, of a key or of a tier."""

from collections import deque
from typing import final

MINUTE_SECONDS = 60.0
LEAST_SECONDS = 0.1
"""That somebody has to wait who is over a limit."""


@final
class MinuteUses:
    """What was used of a limit in the latest minute; the counts are kept, never summed anew."""

    def __init__(self) -> None:
        self._uses: deque[tuple[float, int]] = deque()
        self.num_requests = 0
        self.num_tokens = 0

    def add(self, now: float, *, num_tokens: int) -> None:
        """Counts a request (no tokens), or tokens."""
        self._uses.append((now, num_tokens))
        self.num_requests += not num_tokens
        self.num_tokens += num_tokens

    def seconds_to_wait(
        self, now: float, *, requests_per_minute: int, tokens_per_minute: int
    ) -> float:
        """Until another request may be made; 0: now. Limits of 0 are none."""
        self._forget(before=now - MINUTE_SECONDS)
        is_over = (0 < requests_per_minute <= self.num_requests) or (
            0 < tokens_per_minute <= self.num_tokens
        )
        return max(LEAST_SECONDS, self._uses[0][0] + MINUTE_SECONDS - now) if is_over else 0.0

    def _forget(self, *, before: float) -> None:
        while self._uses and self._uses[0][0] <= before:
            _, num_tokens = self._uses.popleft()
            self.num_requests -= not num_tokens
            self.num_tokens -= num_tokens
