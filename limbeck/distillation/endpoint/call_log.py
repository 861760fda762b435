"""The log of calls: one JSON object a line, on disk before anything is done with an answer.

A call leaves two lines, one before it is sent and one when it ended, so money that a kill left
uncertain counts as spent, and an answer is never paid for twice.
"""

import json
import os
from pathlib import Path

from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.json_data import Json, JsonMapping, JsonObject


class CallLog:
    """Every call that was ever made for one entry of a recipe; holds offsets, not responses."""

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
        self._pending: dict[str, float] = {}
        self._offsets: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._end = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                self._account(_parse(line, path=path, number=number))
                self._end += len(line)
        os.truncate(path, self._end)
        self.spent += self.reserved
        self.reserved = 0.0
        self._pending.clear()

    def find(self, key: str) -> JsonObject | None:
        """The response to a request that was answered before."""
        if key not in self._offsets:
            return None
        with self.path.open("rb") as file:
            file.seek(self._offsets[key])
            return json.loads(file.readline())["response"]

    def begin(self, call: str, *, key: str, bound: float) -> None:
        """Log a call that is about to be sent and costs at most `bound`."""
        self._write({"call": call, "key": key, "event": "asked", "cost": bound})

    def end(self, call: str, *, key: str, cost: float, **result: Json) -> None:
        """Log the end of a call; `result` holds `error`, empty on success, and the `response`."""
        self._write({"call": call, "key": key, "event": "ended", "cost": cost, **result})

    def _write(self, line: JsonMapping) -> None:
        data = (json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n").encode(
            errors="surrogatepass"
        )
        with self.path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._account(line)
        self._end += len(data)

    def _account(self, line: JsonMapping) -> None:
        """Add the line at the end of the file to the sums."""
        if line["event"] == "asked":
            self._pending[line["call"]] = line["cost"]
            self.reserved += line["cost"]
            return
        self.reserved -= self._pending.pop(line["call"], 0.0)
        if not self._pending:
            self.reserved = 0.0  # sums of floats leave a rest
        self.spent += line["cost"]
        if not line["error"]:
            self._offsets[line["key"]] = self._end


def _parse(line: bytes, *, path: Path, number: int) -> JsonObject:
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
