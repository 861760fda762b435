"""Ending an answer at given texts, without ever showing a part of one."""

from collections.abc import Sequence
from typing import final


@final
class StopTexts:
    """Passes on what can no longer become one of the texts that end an answer."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.has_ended = False

    def push(self, text: str) -> str:
        """What may be shown after this piece; nothing that follows a stop text."""
        if self.has_ended or not self._stops:
            return "" if self.has_ended else text
        self._held += text
        ends = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if ends:
            self.has_ended = True
            shown, self._held = self._held[: min(ends)], ""
            return shown
        num_held = max(_overlap(self._held, stop) for stop in self._stops)
        shown = self._held[: len(self._held) - num_held]
        self._held = self._held[len(shown) :]
        return shown

    def finish(self) -> str:
        """What was held back, where the answer ends otherwise."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of a text with which a stop text begins."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
