"""Calls of an OpenAI-compatible server: many at a time, patient, journaled, within a budget.

Left out: what a response says (`reading.py`).
"""

import asyncio
import email.utils
import json
import logging
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx2
from pydantic import Field, field_validator, model_validator

from limbeck.contracts.artifacts import hash_text
from limbeck.contracts.config import Config
from limbeck.contracts.errors import EndpointError
from limbeck.data.endpoint.journal import Journal

logger = logging.getLogger(__name__)

TOKENS_PER_MESSAGE = 32
"""Most that a chat template adds around one message."""
SHOWN_CHARS = 300
FAILURES_IN_A_ROW = 20
"""Records that fail one after the other before asking is given up."""
RETRIED = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which the same request may succeed."""
FATAL = {
    401: "refuses the API key; set the environment variable that `key_variable` names",
    402: "wants to be paid first; top the account up and run again: what was answered is kept",
    403: "refuses the API key for this model; use a key that may ask it",
    404: "knows no such address or model; check `url` (up to /v1) and `model`",
}


class EndpointConfig(Config):
    """A model behind an OpenAI-compatible server, and how it may be asked."""

    url: str
    """Up to the version, as `http://localhost:8000/v1`."""
    model: str
    """Its name there."""
    key_variable: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
    """The environment variable that holds the API key, never the key itself; empty: none is sent."""
    max_concurrent: Annotated[int, Field(gt=0)] = 8
    """Records that are asked about at the same time."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    """Of one call, until the whole answer is there."""
    max_retries: Annotated[int, Field(ge=0)] = 5
    """Of one call, after no answer, a broken one, or a status that asks to come again."""
    retry_seconds: Annotated[float, Field(ge=0)] = 1.0
    """Wait before the first retry; it doubles, unless the server says how long (Retry-After)."""
    longest_wait_seconds: Annotated[float, Field(gt=0)] = 300.0
    """A server that asks for a longer wait stops the run."""
    input_price: Annotated[float, Field(ge=0)] = 0.0
    """Of a million tokens, in any currency."""
    output_price: Annotated[float, Field(ge=0)] = 0.0
    """Of a million tokens, in the same currency."""
    most_cost: Annotated[float, Field(ge=0)] = 0.0
    """Of all calls for this entry, earlier runs included, in that currency; 0: no limit."""
    extra: Mapping[str, Any] = {}
    """Further fields of every request, as the server knows them."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected an address such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("an address is recorded, so it must hold no key; use key_variable")
        return url.rstrip("/").removesuffix("/chat/completions")

    @model_validator(mode="after")
    def _check_prices(self) -> "EndpointConfig":
        if self.most_cost and not (self.input_price or self.output_price):
            raise ValueError("most_cost limits nothing without input_price and output_price")
        return self


class CallError(Exception):
    """One record cannot be labelled: `reason` is what it is counted under."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Request:
    """What is asked, about which record, and what for."""

    body: Mapping[str, Any]
    record: str
    purpose: str

    def key(self, url: str) -> str:
        """The hash that the journal knows it by; equal requests have equal keys."""
        return hash_text(json.dumps([url, self.body, self.purpose], sort_keys=True))

    def bound_tokens(self) -> tuple[int, int]:
        """More input and output tokens than a call can cost: a token is a byte or longer."""
        messages = self.body["messages"]
        num_bytes = sum(len(message["content"].encode()) for message in messages)
        return num_bytes + TOKENS_PER_MESSAGE * (len(messages) + 1), int(self.body["max_tokens"])


@dataclass
class _Failure:
    """An attempt that brought no answer."""

    status: int
    message: str
    wait_seconds: float | None = None
    lost: bool = False
    """Whether the server may have computed, and charge for, an answer that never came."""


class Endpoint:
    """Asks; a response that the journal holds is not asked for again."""

    def __init__(self, config: EndpointConfig, *, journal: Journal) -> None:
        """Raises: EndpointError: the variable that holds the key is not set."""
        self.config = config
        self.journal = journal
        self.stopping = False
        self.num_calls = self.num_reused = 0
        self.used: list[str] = []
        self._num_answered = self._num_failed_in_a_row = 0
        self._reserved = 0.0
        self._settled = asyncio.Condition()
        self._key = os.environ.get(config.key_variable, "") if config.key_variable else ""
        if config.key_variable and not self._key:
            raise EndpointError(
                f"the environment variable {config.key_variable!r}, which key_variable names, is "
                "not set or empty; export the API key in it"
            )
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=config.timeout_seconds,
            limits=httpx2.Limits(max_connections=config.max_concurrent),
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    async def call(self, request: Request) -> dict[str, Any]:
        """The response to a request, from the journal where it stands there.

        Raises:
            CallError: this request gets no answer.
            EndpointError: no request would, or it could cost too much.
        """
        key = request.key(self.config.url)
        found = self.journal.find(key)
        if found is not None:
            self.num_reused += 1
            self.used.append(key)
            return found["response"]
        for attempt in range(1, self.config.max_retries + 2):
            if self.stopping:
                raise CallError("stopped", "another call stopped the run")
            result = await self._try(request, key=key, attempt=attempt)
            if not isinstance(result, _Failure):
                self.used.append(key)
                self._num_answered += 1
                return result
            last = attempt > self.config.max_retries
            await self._judge(result, attempt=attempt, last=last)
        raise AssertionError("the last attempt returns or raises")

    async def _judge(self, failure: _Failure, *, attempt: int, last: bool) -> None:
        """Wait before the next attempt, or say why there is none."""
        place = f"{self.config.url} (model {self.config.model!r})"
        if failure.status in FATAL:
            raise EndpointError(
                f"{place} {FATAL[failure.status]}; it said: {failure.message}"
            )
        if 300 <= failure.status < 500 and failure.status not in RETRIED:
            raise CallError("refused", failure.message)
        if last and not self._num_answered:
            raise EndpointError(
                f"{place} gives no answer, tried {attempt} times: {failure.message}; check that "
                "it runs and that `url` is right, then run again"
            )
        if last:
            raise CallError("unavailable", failure.message)
        pause = self.config.retry_seconds * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
        if failure.wait_seconds is not None:
            pause = failure.wait_seconds
        if pause > self.config.longest_wait_seconds:
            raise EndpointError(
                f"{place} asks to wait {pause:,.0f} s, longest_wait_seconds is "
                f"{self.config.longest_wait_seconds:,.0f}; run again later: what was answered is kept"
            )
        logger.info("%s: %s; again in %.1f s", self.config.url, failure.message, pause)
        await asyncio.sleep(pause)

    async def _try(
        self, request: Request, *, key: str, attempt: int
    ) -> dict[str, Any] | _Failure:
        bound = self._price(*request.bound_tokens())
        await self._reserve(bound)
        started = time.monotonic()
        result: dict[str, Any] | _Failure = _Failure(0, "the run was stopped", lost=True)
        try:
            result = await self._post(request.body)
        finally:
            self.num_calls += 1
            failed = isinstance(result, _Failure)
            usage = {} if failed else _usage(result)
            if failed:
                cost = bound if result.lost else 0.0
            else:
                cost = self._price(*usage.values()) if usage else bound
            self.journal.write(
                {
                    "key": key, "record": request.record, "purpose": request.purpose,
                    "attempt": attempt, "time": datetime.now(UTC).isoformat(timespec="seconds"),
                    "seconds": round(time.monotonic() - started, 3), "usage": usage, "cost": cost,
                    "status": result.status if failed else 200,
                    "error": result.message if failed else "",
                    "response": {} if failed else result,
                }
            )  # fmt: skip
            self._reserved -= bound
            async with self._settled:
                self._settled.notify_all()
        return result

    async def _post(self, body: Mapping[str, Any]) -> dict[str, Any] | _Failure:
        try:
            async with asyncio.timeout(self.config.timeout_seconds):
                response = await self._client.post(
                    f"{self.config.url}/chat/completions", json=dict(body)
                )
        except (TimeoutError, httpx2.TimeoutException):
            return _Failure(0, f"no answer in {self.config.timeout_seconds:g} s", lost=True)
        except httpx2.HTTPError as error:
            lost = not isinstance(error, httpx2.ConnectError)
            return _Failure(0, f"{type(error).__name__} {self._hide(str(error))}", lost=lost)
        if response.status_code != 200:
            wait = _read_wait(response.headers.get("retry-after", ""))
            text = self._hide(response.text) or "nothing more"
            return _Failure(response.status_code, f"status {response.status_code}: {text}", wait)
        try:
            value = response.json()
            if not isinstance(value["choices"][0]["message"], dict):
                raise TypeError("'message' is no object")
        except (ValueError, KeyError, IndexError, TypeError):
            text = self._hide(response.text) or "nothing"
            return _Failure(200, f"not a chat completion: {text}", lost=True)
        # A server may echo what it was sent; a key in a journal would be a key in a backup.
        return json.loads(json.dumps(value).replace(self._key, "***")) if self._key else value

    def _hide(self, text: str) -> str:
        return (text.replace(self._key, "***") if self._key else text)[:SHOWN_CHARS]

    def _price(self, num_input: int, num_output: int) -> float:
        config = self.config
        return (num_input * config.input_price + num_output * config.output_price) / 1e6

    async def _reserve(self, bound: float) -> None:
        """Set aside what a call may cost; wait while other calls may leave enough of theirs."""
        most = self.config.most_cost
        async with self._settled:
            while most and self.journal.cost + self._reserved + bound > most:
                if not self._reserved:
                    raise EndpointError(
                        f"the next call may cost {bound:.6g} and {self.journal.cost:.6g} of "
                        f"most_cost {most:g} are spent; raise most_cost and run again: what was "
                        f"answered is kept in {self.journal.path} and is not paid for again"
                    )
                await self._settled.wait()
            self._reserved += bound

    def count_outcome(self, error: CallError | None) -> None:
        """Hear how a record ended.

        Raises:
            EndpointError: too many failed one after the other.
        """
        self._num_failed_in_a_row = self._num_failed_in_a_row + 1 if error else 0
        if error and self._num_failed_in_a_row >= FAILURES_IN_A_ROW:
            raise EndpointError(
                f"{self._num_failed_in_a_row} records in a row got no usable answer from "
                f"{self.config.url} (model {self.config.model!r}); the last: {error}. Mend that "
                "and run again: what was answered is kept"
            )


def _usage(response: Mapping[str, Any]) -> dict[str, int]:
    """Tokens in and out; nothing where the server does not tell."""
    found = response.get("usage")
    names = ("prompt_tokens", "completion_tokens")
    counts = [found.get(name) for name in names] if isinstance(found, dict) else []
    if not counts or not all(isinstance(count, int) and count >= 0 for count in counts):
        return {}
    return dict(zip(names, counts, strict=True))


def _read_wait(text: str) -> float | None:
    """Seconds of a Retry-After header, which holds a number or a date."""
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when - datetime.now(UTC)).total_seconds()) if when.tzinfo else None
