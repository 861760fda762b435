"""The contents of a chat completion: its text, and the likeliest tokens at each position."""

from dataclasses import dataclass

from limbeck.contracts.json_data import JsonMapping
from limbeck.distillation.endpoint.client import CallError

MAX_QUOTED_CHARS = 200


@dataclass(frozen=True)
class Candidate:
    """A token of the server's distribution at one position."""

    text: str
    data: bytes
    """Its bytes; a piece of a character has no text of its own."""
    log: float
    """Its log-probability."""


@dataclass(frozen=True)
class TokenLogprobs:
    """A token of the answer, and the likeliest tokens at its position."""

    chosen: Candidate
    top: tuple[Candidate, ...]


def read_answer(response: JsonMapping) -> str:
    """The whole answer, as it was written.

    Raises:
        CallError: it is empty, was cut off, was withheld, or is no text.
    """
    choice = response["choices"][0]
    content, finish = choice["message"].get("content"), choice.get("finish_reason")
    if finish == "length":
        raise CallError(
            "cut_off", f"longer than max_new_tokens: {str(content)[-MAX_QUOTED_CHARS:]!r}"
        )
    if finish == "content_filter":
        raise CallError("withheld", "the server's filter took the answer")
    if not isinstance(content, str) or not content.strip():
        raise CallError("empty_answer", f"content is {content!r}, finish_reason {finish!r}")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise CallError("broken_text", f"{error} in {content[:MAX_QUOTED_CHARS]!r}") from None
    return content


def read_logprobs(response: JsonMapping) -> list[TokenLogprobs]:
    """The tokens of an answer, in order.

    Raises:
        CallError: the server returned none, or not in the form of the API.
    """
    logprobs = response["choices"][0].get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not content:
        raise CallError("no_logprobs", f"'logprobs' is {str(logprobs)[:MAX_QUOTED_CHARS]}")
    try:
        return [
            TokenLogprobs(
                _candidate(place), tuple(map(_candidate, place.get("top_logprobs") or ()))
            )
            for place in content
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CallError("bad_logprobs", f"{error!r} in {str(content)[:MAX_QUOTED_CHARS]}") from None


def _candidate(value: JsonMapping) -> Candidate:
    text, data, log = value["token"], value.get("bytes"), float(value["logprob"])
    if not isinstance(text, str) or not log <= 1e-3:
        raise ValueError(f"token {text!r} with logprob {log}")
    return Candidate(text, text.encode() if data is None else bytes(data), min(log, 0.0))
