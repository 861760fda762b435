"""The journal of calls: one JSON object a line, written before anything is done with an answer.

A call that was answered is never paid for twice, whatever killed the run. Left out: making calls
(`calling.py`).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.contracts.errors import ArtifactError


class Journal:
    """Every call that was ever made for one entry of a recipe; holds places, not responses."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that a kill left half written is cut off.

        Raises:
            ArtifactError: another line is damaged.
        """
        self.path = path
        self.cost = 0.0
        self._places: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        place = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                self._note(_parse(line, path=path, number=number), place)
                place += len(line)
        os.truncate(path, place)
        self._end = place

    def _note(self, call: Mapping[str, Any], place: int) -> None:
        self.cost += call["cost"]
        if not call["error"]:
            self._places[call["key"]] = place

    def find(self, key: str) -> dict[str, Any] | None:
        """The call that answered a request before."""
        if key not in self._places:
            return None
        with self.path.open("rb") as file:
            file.seek(self._places[key])
            return json.loads(file.readline())

    def write(self, call: Mapping[str, Any]) -> None:
        """Add a call; it is on disk when this returns."""
        line = (json.dumps(call, ensure_ascii=False, sort_keys=True) + "\n").encode()
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._note(call, self._end)
        self._end += len(line)


def _parse(line: bytes, *, path: Path, number: int) -> dict[str, Any]:
    try:
        call = json.loads(line)
        if not isinstance(call["key"], str) or not isinstance(call["error"], str):
            raise TypeError("'key' and 'error' must be texts")
        call["cost"] = float(call["cost"])
        return call
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: line {number} is no call ({error!r}); take that line out, or the file away "
            "to pay for every call again"
        ) from None
