"""A chat completion of another server: what it is sent, and what its stream of events means.

Pure functions and readers of bytes. Left out: the connection.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn, final, get_args

from limbeck.contracts.answer_policy import repeats
from limbeck.contracts.answerer import geometric_mean
from limbeck.contracts.errors import EngineDownError, RefusedError
from limbeck.contracts.json_data import Json, JsonObject
from limbeck.serving.engine.messages import (
    AnswerStatus,
    ChosenToken,
    Finished,
    FinishReason,
    Generate,
    Piece,
    TokenLogProb,
)
from limbeck.serving.engine.remote_errors import MAX_QUOTED_CHARS, message_of
from limbeck.serving.place import OpenAiHttp

MAX_EVENT_BYTES = 2**22
"""A server that sends a longer event speaks another protocol."""
SEEDS = 2**31
"""Servers have seeds of 32 bits at least; a longer one is folded."""
DONE = "[DONE]"
REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "content_filter": "stop",
    "length": "length",
}


def describe_request(request: Generate, *, model: str, place: OpenAiHttp) -> JsonObject:
    """The body of a request for a stream.

    Raises:
        RefusedError: it needs what the server does not read.
    """
    _check_options(request, place)
    sampling = request.sampling
    body: JsonObject = {
        "model": model,
        "messages": [{"role": item.role, "content": item.content} for item in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
    }
    if request.max_new_tokens:
        body[place.limit_field] = request.max_new_tokens
    if sampling.top_p != 1.0:
        body["top_p"] = sampling.top_p
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.temperature and "seed" in place.options:
        body["seed"] = sampling.seed % SEEDS
    if request.stop:
        body["stop"] = list(request.stop)
    if request.num_choices > 1:
        body["n"] = request.num_choices
    if place.logprobs:
        body["logprobs"] = True
        # llama.cpp lists 20 where no number is given, and of 0 not even the token's own.
        body["top_logprobs"] = max(1, request.num_top_log_probs)
    return body


def _check_options(request: Generate, place: OpenAiHttp) -> None:
    needed = {
        "n": request.num_choices > 1,
        "seed": request.sampling.has_seed,
        "top_k": request.sampling.top_k > 0,
    }
    missing = [name for name, is_needed in needed.items() if is_needed]
    missing = [name for name in missing if name not in place.options]
    if request.num_top_log_probs >= 0 and not place.logprobs:
        missing.append("logprobs")
    if request.images:
        missing.append("images")
    if missing:
        raise RefusedError(
            f"the model's server does not take {', '.join(missing)}; leave it out, or name another "
            "model",
            is_too_long=False,
        )


@final
class EventReader:
    """Server-sent events from the bytes of a stream, cut wherever they may be."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._data: list[str] = []

    def push(self, content: bytes) -> list[str]:
        """The data of the events that are complete.

        Raises:
            EngineDownError: they are none.
        """
        self._rest += content
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EngineDownError(f"it sent an event of more than {MAX_EVENT_BYTES:,} bytes")
        found: list[str] = []
        for line in lines:
            text = _decode(line.removesuffix(b"\r"))
            if not text and self._data:
                found.append("\n".join(self._data))
                self._data = []
            elif text.startswith("data:"):
                self._data.append(text.removeprefix("data:").removeprefix(" "))
        return found


def _decode(line: bytes | bytearray) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise EngineDownError("it sent bytes that are no text") from None


@dataclass
class _Choice:
    """One answer so far."""

    text: list[str] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    num_pieces: int = 0
    reason: FinishReason | None = None
    status: AnswerStatus = "answered"
    confidence: float | None = None
    """What a Limbeck service gave it."""


@final
class AnswerReader:
    """The answers to one request, from the data of its events."""

    def __init__(self, request: Generate) -> None:
        self._request = request
        self._choices = [_Choice() for _ in range(request.num_choices)]
        self._num_prompt_tokens = 0
        self._num_tokens: int | None = None
        self._has_total = False
        self.is_done = False
        """Whether the server has said that nothing follows."""

    def take(self, data: str) -> list[Piece]:
        """The pieces of answers of an event.

        Raises:
            EngineDownError: the event says that the server failed, or is none of this protocol.
        """
        if data == DONE:
            self.is_done = True
            return []
        try:
            chunk = json.loads(data, parse_constant=_refuse_constant)
            if not isinstance(chunk, dict):
                raise TypeError
            if "error" in chunk:
                message = message_of(chunk["error"])
                raise EngineDownError(f"it broke off: {message}")
            self._take_usage(chunk)
            pieces = [self._take_choice(item) for item in chunk.get("choices") or ()]
            if isinstance(chunk.get("limbeck"), dict):
                self._take_extension(chunk["limbeck"], chunk["choices"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            raise EngineDownError(
                "it sent an event that is no part of a chat completion: "
                f"{data[:MAX_QUOTED_CHARS]!r}"
            ) from None
        return [piece for piece in pieces if piece.text or piece.tokens]

    def _take_usage(self, chunk: JsonObject) -> None:
        """Counts of a chunk without choices are final ones: of all answers, or of one of them.

        Those of other chunks are what has been written so far.
        """
        usage = chunk.get("usage") or {}
        if not isinstance(usage, dict):
            raise TypeError
        written, is_final = _count(usage, "completion_tokens"), not chunk.get("choices")
        if written is None or (self._has_total and not is_final):
            return
        self._num_prompt_tokens = _count(usage, "prompt_tokens") or 0
        self._num_tokens = written + (self._num_tokens or 0 if self._has_total else 0)
        self._has_total = is_final

    def _take_choice(self, found: Json) -> Piece:
        index = found["index"]
        if not isinstance(index, int) or index < 0:
            raise TypeError
        choice = self._choices[index]
        text = found["delta"].get("content") or ""
        if not isinstance(text, str):
            raise TypeError
        choice.text.append(text)
        choice.num_pieces += bool(text)
        listed = (found.get("logprobs") or {}).get("content") or ()
        tokens = tuple(_read_token(item) for item in listed)
        choice.log_probs += [item.chosen.log_prob for item in tokens]
        if found.get("finish_reason"):
            choice.reason = REASONS[found["finish_reason"]]
            if found["finish_reason"] == "content_filter":
                choice.status = "withheld"
        wanted = self._request.num_top_log_probs
        shown = (
            tuple(replace(item, top=item.top[:wanted]) for item in tokens) if wanted >= 0 else ()
        )
        return Piece(self._request.id, index, text, shown)

    def _take_extension(self, found: JsonObject, choices: Sequence[Json]) -> None:
        """What a Limbeck service adds: an answer that says that it does not know is not one."""
        for item in choices:
            choice = self._choices[item["index"]]
            if found.get("status") in get_args(AnswerStatus):
                choice.status = found["status"]
            if isinstance(found.get("confidence"), int | float):
                choice.confidence = min(1.0, max(0.0, float(found["confidence"])))

    @property
    def has_ended(self) -> bool:
        """Whether every answer has its end."""
        return all(choice.reason is not None for choice in self._choices)

    def finish(self, *, queue_seconds: float, decode_seconds: float) -> list[Finished]:
        """The ends of all answers, when nothing follows.

        Raises:
            EngineDownError: an answer has none.
        """
        if not self.has_ended:
            raise EngineDownError("it ended the stream before the answer's end")
        found = []
        for index, choice in enumerate(self._choices):
            assert choice.reason is not None
            confidence = choice.confidence
            if confidence is None and choice.log_probs:
                confidence = geometric_mean(choice.log_probs)
            found.append(
                Finished(
                    self._request.id,
                    index,
                    choice.reason,
                    self._num_prompt_tokens,
                    self._count_tokens(index),
                    confidence,
                    None,
                    repeats("".join(choice.text)),
                    queue_seconds=queue_seconds,
                    decode_seconds=decode_seconds,
                    status=choice.status,
                )
            )
        return found

    def _count_tokens(self, index: int) -> int:
        """Tokens of one answer; a server counts those of all, or else sends one a piece."""
        choice = self._choices[index]
        if self._num_tokens is None:
            return len(choice.log_probs) or choice.num_pieces
        share, rest = divmod(self._num_tokens, len(self._choices))
        return share + (index < rest)


def _read_token(found: Json) -> ChosenToken:
    top = tuple(_read_log_prob(item) for item in found.get("top_logprobs") or ())
    return ChosenToken(_read_log_prob(found), top)


def _read_log_prob(found: Json) -> TokenLogProb:
    text, value = found["token"], float(found["logprob"])
    if not isinstance(text, str) or not math.isfinite(value):
        raise TypeError
    return TokenLogProb(text, value)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _count(usage: JsonObject, name: str) -> int | None:
    found = usage.get(name)
    return found if isinstance(found, int) and found >= 0 else None
