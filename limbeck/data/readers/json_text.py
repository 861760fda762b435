"""JSON as data sets hold it: what Python's parser would change or pass over in silence is kept.

A number stays as it was written, a key that stands twice is a fault, and the items of an array are
read one after the other.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO, final

from typing_extensions import override

from limbeck.contracts.json_data import Json, JsonObject
from limbeck.data.readers import text_files

CHUNK_CHARS = 1 << 20
BLANKS = re.compile(r"[ \t\r\n\ufeff]*")


class DuplicateKeyError(ValueError):
    """An object has one key twice, so one of its values would be lost."""

    def __init__(self, key: str, value: JsonObject) -> None:
        super().__init__(f"the key {key!r} stands twice")
        self.value = value


@final
class WrittenFloat(float):
    """A number with a fraction whose text is the one in the file, such as `2.50`."""

    _written: str

    def __new__(cls, written: str) -> "WrittenFloat":
        """The number that a text of JSON stands for."""
        found = super().__new__(cls, written)
        found._written = written
        return found

    @override
    def __str__(self) -> str:
        return self._written


def _unique_keys(pairs: list[tuple[str, Json]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise DuplicateKeyError(next(key for key in keys if keys.count(key) > 1), found)
    return found


STRICT = json.JSONDecoder(parse_float=WrittenFloat, object_pairs_hook=_unique_keys)
LENIENT = json.JSONDecoder()


def parse_json(text: str) -> Json:
    """The value of a JSON text.

    Raises:
        DuplicateKeyError: an object has a key twice.
        ValueError: the text is not JSON, or nests too deep.
    """
    try:
        return STRICT.decode(text)
    except RecursionError:
        raise ValueError("nests too deep") from None


def write_json(value: Json) -> str:
    """A value as JSON on one line, its numbers as they were written."""
    if isinstance(value, Mapping):
        pairs = (f"{write_json(str(key))}: {write_json(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(write_json, value))}]"
    return str(value) if isinstance(value, WrittenFloat) else json.dumps(value, ensure_ascii=False)


def array_items(file: TextIO) -> Iterator[Json | DuplicateKeyError]:
    """The items of the array that a file holds, and a fault in the place of each that has one.

    Raises:
        ValueError: the file is no JSON array; says where.
    """
    stream = _Stream(file)
    if stream.next_char() != "[":
        raise ValueError("does not begin with '['")
    stream.skip(1)
    if stream.next_char() == "]":
        stream.skip(1)
    else:
        while True:
            stream.next_char()
            yield stream.read_value()
            mark = stream.next_char()
            stream.skip(1)
            if mark == "]":
                break
            if mark != ",":
                raise stream.fault("expected ',' or ']' after an item")
    if stream.next_char():
        raise stream.fault("something follows the array's end")


class _Stream:
    """A file's text, of which only the value being read is held."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._buffer = ""
        self._position = 0
        self._num_lines = 1
        self._is_complete = False

    def next_char(self) -> str:
        """The first character that is no blank, not taken yet; '' at the end."""
        while True:
            blanks = BLANKS.match(self._buffer, self._position)
            assert blanks is not None
            self.skip(blanks.end() - self._position)
            if self._position < len(self._buffer) or self._is_complete:
                return self._buffer[self._position : self._position + 1]
            self._read_more()

    def skip(self, count: int) -> None:
        """Take characters."""
        end = self._position + count
        self._num_lines += self._buffer.count("\n", self._position, end)
        self._position = end

    def read_value(self) -> Json | DuplicateKeyError:
        """Take the value that begins here."""
        while True:
            try:
                found, end = self._decode()
            except json.JSONDecodeError as error:
                if self._is_complete:
                    self.skip(error.pos - self._position)
                    raise self.fault(error.msg) from None
                if len(self._buffer) - self._position > text_files.MAX_LINE_CHARS:
                    most = f"{text_files.MAX_LINE_CHARS:,} characters"
                    raise self.fault(f"an item is broken, or longer than {most}") from None
            except RecursionError:
                raise self.fault("nests too deep") from None
            else:
                # A number may go on behind what is in memory.
                if end < len(self._buffer) or self._is_complete:
                    self.skip(end - self._position)
                    return found
            self._read_more()

    def _decode(self) -> tuple[Json | DuplicateKeyError, int]:
        try:
            return STRICT.raw_decode(self._buffer, self._position)
        except DuplicateKeyError as error:
            return error, LENIENT.raw_decode(self._buffer, self._position)[1]

    def fault(self, message: str) -> ValueError:
        """An error that names the line."""
        return ValueError(f"line {self._num_lines}: {message}")

    def _read_more(self) -> None:
        kept = self._buffer[self._position :]
        # As much again as is there: a long value is not parsed once a chunk. No more than needed
        # to see that it is too long.
        most = max(CHUNK_CHARS, text_files.MAX_LINE_CHARS + 1 - len(kept))
        chunk = self._file.read(min(max(CHUNK_CHARS, len(kept)), most))
        self._buffer, self._position = kept + chunk, 0
        self._is_complete = not chunk
