"""The journal of calls: one JSON object a line, on disk before anything is done with an answer.

A call leaves two lines, one before it goes out and one when it ended, so money that a kill left
uncertain counts as spent, and an answer is never paid for twice.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.contracts.errors import ArtifactError


class CallLog:
    """Every call that was ever made for one entry of a recipe; holds places, not responses."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that a kill left half written is cut off.

        Raises:
            ArtifactError: another line is damaged.
        """
        self.path = path
        self.spent = 0.0
        """By ended calls, and at most by those that a kill cut off."""
        self.reserved = 0.0
        """What calls that are under way may cost at most."""
        self._open: dict[str, float] = {}
        self._places: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._end = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                self._note(_parse(line, path=path, number=number))
                self._end += len(line)
        os.truncate(path, self._end)
        self.spent += self.reserved
        self.reserved = 0.0
        self._open.clear()

    def find(self, key: str) -> dict[str, Any] | None:
        """The response to a request that was answered before."""
        if key not in self._places:
            return None
        with self.path.open("rb") as file:
            file.seek(self._places[key])
            return json.loads(file.readline())["response"]

    def begin(self, call: str, *, key: str, bound: float) -> None:
        """A call goes out that may cost so much."""
        self._write({"call": call, "key": key, "event": "asked", "cost": bound})

    def end(self, call: str, *, key: str, cost: float, **told: Any) -> None:
        """A call ended; `told` holds `error`, empty for an answer, and the `response`."""
        self._write({"call": call, "key": key, "event": "ended", "cost": cost, **told})

    def _write(self, line: Mapping[str, Any]) -> None:
        data = (json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n").encode(
            errors="surrogatepass"
        )
        with self.path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._note(line)
        self._end += len(data)

    def _note(self, line: Mapping[str, Any]) -> None:
        """Account for the line that stands at the end."""
        if line["event"] == "asked":
            self._open[line["call"]] = line["cost"]
            self.reserved += line["cost"]
            return
        self.reserved -= self._open.pop(line["call"], 0.0)
        if not self._open:
            self.reserved = 0.0  # sums of floats leave a rest
        self.spent += line["cost"]
        if not line["error"]:
            self._places[line["key"]] = self._end


def _parse(line: bytes, *, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
        texts = [value["call"], value["key"], value["event"]]
        if value["event"] == "ended":
            texts.append(value["error"])
            if not value["error"] and not isinstance(value["response"], dict):
                raise TypeError("'response' must be an object")
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("'call', 'key', 'event' and 'error' must be texts")
        value["cost"] = float(value["cost"])
        return value
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: line {number} is no call ({error!r}); take that line out, or the file away "
            "to pay for every call again"
        ) from None
