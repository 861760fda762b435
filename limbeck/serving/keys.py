"""API keys: only their hashes are kept, in a file that may change while the service runs."""

import hmac
import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, final, get_args

from pydantic import Field

from limbeck.contracts.artifacts import hash_text, write_atomically
from limbeck.contracts.config import Config
from limbeck.contracts.errors import DataError, UnknownNameError
from limbeck.contracts.fields import NonNegativeInt
from limbeck.serving.minute import MinuteUses

Scope = Literal["chat", "feedback", "review", "metrics", "admin"]
"""`review`: reads everybody's conversations and judges them; `admin`: good for everything."""
PREFIX = "lmb-"
"""So that a key that lies about is recognised as one."""


class KeyEntry(Config):
    """One key of the file."""

    name: str
    """Whose it is; stands in logs and in the journal, the key itself never."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: tuple[Scope, ...] = ("chat", "feedback")
    requests_per_minute: NonNegativeInt = 0
    """0: no limit."""
    tokens_per_minute: NonNegativeInt = 0

    def is_good_for(self, wanted: Scope) -> bool:
        """Whether the key opens what needs this scope."""
        return wanted in self.scopes or "admin" in self.scopes


class KeyFile(Config):
    """The content of the file."""

    keys: tuple[KeyEntry, ...] = ()


def read_scopes(names: Sequence[str]) -> tuple[Scope, ...]:
    """The scopes of these names.

    Raises:
        UnknownNameError: there is no such scope.
    """
    found: dict[str, Scope] = {name: name for name in get_args(Scope)}
    for name in names:
        if name not in found:
            raise UnknownNameError(name, known=found, what="scope")
    return tuple(found[name] for name in names)


def hash_key(key: str) -> str:
    """What is kept of a key: it is random, so a plain hash cannot be searched through."""
    return hash_text(key)


def add_key(path: Path, *, name: str, scopes: tuple[Scope, ...]) -> str:
    """A new key, whose hash is added to the file; it is shown this once.

    Raises:
        DataError: the file is damaged, or has a key of this name.
    """
    found = read_keys(path) if path.is_file() else KeyFile()
    if any(item.name == name for item in found.keys):
        raise DataError(
            f"there is a key called {name!r} already; remove it or take another name", path=path
        )
    key = PREFIX + secrets.token_urlsafe(32)
    entry = KeyEntry(name=name, sha256=hash_key(key), scopes=scopes)
    write_atomically(
        path, found.replace(keys=(*found.keys, entry)).model_dump_json(indent=2) + "\n"
    )
    path.chmod(0o600)
    return key


def read_keys(path: Path) -> KeyFile:
    """The keys of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return KeyFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot be read as keys ({error}); make one: limbeck keys", path=path
        ) from None


@final
class Keys:
    """The keys of a file, read again when it changes; without a file, nobody needs one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._entries: tuple[KeyEntry, ...] = ()
        self._used: dict[str, MinuteUses] = {}
        if path is not None:
            self._read()

    @property
    def is_open(self) -> bool:
        """Whether no key is needed."""
        return self._path is None

    def find(self, key: str) -> KeyEntry | None:
        """The entry of a key; all are compared, each in constant time."""
        self._read()
        wanted, found = hash_key(key), None
        for entry in self._entries:
            if hmac.compare_digest(entry.sha256, wanted):
                found = entry
        return found

    def seconds_to_wait(self, entry: KeyEntry) -> float:
        """Until the key may be used again; 0: now. The use is noted then."""
        now, used = time.monotonic(), self._used.setdefault(entry.name, MinuteUses())
        seconds = used.seconds_to_wait(
            now,
            requests_per_minute=entry.requests_per_minute,
            tokens_per_minute=entry.tokens_per_minute,
        )
        if not seconds:
            used.add(now, num_tokens=0)
        return seconds

    def note_tokens(self, name: str, num_tokens: int) -> None:
        """Counts tokens towards a key's limit."""
        if num_tokens and name in self._used:
            self._used[name].add(time.monotonic(), num_tokens=num_tokens)

    def _read(self) -> None:
        if self._path is None:
            return
        try:
            status = self._path.stat()
        except OSError:
            return  # being replaced; the keys read before go on to hold
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            try:
                self._entries, self._stamp = read_keys(self._path).keys, stamp
            except DataError:
                if self._stamp is None:
                    raise
