"""Calls of an OpenAI-compatible server: many at a time, patient, journaled, within a budget."""

import asyncio
import contextlib
import json
import logging
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from limbeck.contracts.artifacts import hash_text
from limbeck.contracts.errors import EndpointError
from limbeck.distillation.endpoint.call_log import CallLog
from limbeck.distillation.endpoint.config import EndpointConfig
from limbeck.distillation.endpoint.http import Failure, HttpTransport, read_usage

logger = logging.getLogger(__name__)

TOKENS_PER_MESSAGE = 32
"""Most that a chat template adds around one message."""
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


class CallError(Exception):
    """One record cannot be labelled: `reason` is what it is counted under."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Request:
    """What is asked, about which record, and what for."""

    messages: Sequence[Mapping[str, str]]
    most_tokens: int
    """Of the answer."""
    fields: Mapping[str, Any]
    """Further fields."""
    record: str
    purpose: str
    """Tells requests apart that ask the same and are to be answered anew."""

    def bound_tokens(self) -> tuple[int, int]:
        """More input and output tokens than a call can cost: a token is a byte or longer."""
        num_bytes = sum(len(message["content"].encode()) for message in self.messages)
        return num_bytes + TOKENS_PER_MESSAGE * (len(self.messages) + 1), self.most_tokens


class Endpoint:
    """Asks; a response that the journal holds is not asked for again."""

    def __init__(self, config: EndpointConfig, *, journal: CallLog) -> None:
        """Raises: EndpointError: the key is not set, or stands in the recipe."""
        self.config = config
        self.journal = journal
        self.num_calls = self.num_reused = 0
        self._num_answered = self._num_failed_in_a_row = 0
        self._settled = asyncio.Condition()
        self._stop = asyncio.Event()
        self._line = HttpTransport(config)

    @property
    def stopping(self) -> bool:
        """Whether nothing is to be asked any more."""
        return self._stop.is_set()

    async def stop(self) -> None:
        """Ask nothing any more; calls that are under way go on to their end."""
        self._stop.set()
        await self._tell_settled()

    async def close(self) -> None:
        """Give the connections back."""
        await self._line.close()

    async def call(self, request: Request) -> dict[str, Any]:
        """The response to a request, from the journal where it stands there.

        Raises:
            CallError: this request gets no answer.
            EndpointError: no request would, or it could cost too much.
        """
        body = {
            **self.config.extra,
            **request.fields,
            "model": self.config.model,
            "messages": list(request.messages),
            self.config.limit_field: request.most_tokens,
        }
        key = hash_text(json.dumps([self.config.url, body, request.purpose], sort_keys=True))
        found = self.journal.find(key)
        if found is not None:
            self.num_reused += 1
            return self._recognise(found)
        for attempt in range(1, self.config.max_retries + 2):
            result = await self._try(request, body=body, key=key, attempt=attempt)
            if not isinstance(result, Failure):
                self._num_answered += 1
                return self._recognise(result)
            last = attempt > self.config.max_retries
            await self._judge(result, attempt=attempt, last=last)
        raise AssertionError("the last attempt returns or raises")

    def _recognise(self, response: dict[str, Any]) -> dict[str, Any]:
        """The response, if the model that was asked gave it; servers add a version to its name."""
        name, config = response.get("model"), self.config
        known = config.served_as or config.model
        if isinstance(name, str) and name and not name.startswith(known):
            raise EndpointError(
                f"{config.url} was asked for the model {config.model!r} and answered as {name!r}, "
                f"expected {known!r}; name that model, or say `served_as: {name}` if it is the "
                "same. The answer is kept"
            )
        return response

    async def _judge(self, failure: Failure, *, attempt: int, last: bool) -> None:
        """Wait before the next attempt, or say why there is none."""
        place = f"{self.config.url} (model {self.config.model!r})"
        if failure.status in FATAL:
            raise EndpointError(f"{place} {FATAL[failure.status]}; it said: {failure.message}")
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
        if pause > self.config.max_wait_seconds:
            raise EndpointError(
                f"{place} asks to wait {pause:,.0f} s, max_wait_seconds is "
                f"{self.config.max_wait_seconds:,.0f}; run again later: what was answered is "
                "kept"
            )
        logger.info("%s: %s; again in %.1f s", self.config.url, failure.message, pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), pause)

    async def _try(
        self, request: Request, *, body: Mapping[str, Any], key: str, attempt: int
    ) -> dict[str, Any] | Failure:
        bound = self._price(*request.bound_tokens())
        await self._await_money(bound)
        call = uuid.uuid4().hex
        self.journal.begin(call, key=key, bound=bound)
        self.num_calls += 1
        started = time.monotonic()
        result: dict[str, Any] | Failure = Failure(0, "the run was stopped", lost=True)
        try:
            result = await self._line.post(body)
        finally:
            failed = isinstance(result, Failure)
            usage = {} if failed else read_usage(result)
            cost = self._price(*usage.values()) if usage else bound
            self.journal.end(
                call,
                key=key,
                cost=0.0 if failed and not result.lost else cost,
                record=request.record,
                purpose=request.purpose,
                attempt=attempt,
                time=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - started, 3),
                usage=usage,
                status=result.status if failed else 200,
                error=result.message if failed else "",
                response={} if failed else result,
            )
        await self._tell_settled()
        return result

    async def _tell_settled(self) -> None:
        async with self._settled:
            self._settled.notify_all()

    async def _await_money(self, bound: float) -> None:
        """Wait while calls that are under way may leave enough for one that may cost `bound`."""
        most, journal = self.config.max_cost, self.journal
        async with self._settled:
            while True:
                if self.stopping:
                    raise CallError("stopped", "another call stopped the run")
                if not most or journal.spent + journal.reserved + bound <= most:
                    return
                if not journal.reserved:
                    raise EndpointError(
                        f"{journal.spent:.6g} of max_cost {most:g} are spent, "
                        f"{most - journal.spent:.6g} are left, and the next call may cost "
                        f"{bound:.6g}; raise max_cost and run again: what was answered is kept in "
                        f"{journal.path} and is not paid for again"
                    )
                await self._settled.wait()

    def _price(self, num_input: int, num_output: int) -> float:
        config = self.config
        return (num_input * config.input_price + num_output * config.output_price) / 1e6

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
