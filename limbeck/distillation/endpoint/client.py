"""Calls of an OpenAI-compatible server: concurrent, retried, logged, within a budget."""

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

from limbeck.contracts.artifacts import hash_text
from limbeck.contracts.errors import EndpointError
from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.distillation.endpoint.call_log import CallLog
from limbeck.distillation.endpoint.config import EndpointConfig
from limbeck.distillation.endpoint.http import HttpTransport, RequestFailure, read_usage

logger = logging.getLogger(__name__)

TOKENS_PER_MESSAGE = 32
"""Most that a chat template adds around one message."""
MAX_CONSECUTIVE_FAILURES = 20
"""Failed records in a row after which the run stops."""
RETRIED_STATUSES = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which the same request may succeed."""
FATAL_STATUSES = {
    401: "refuses the API key; set the environment variable that `key_variable` names",
    402: "requires payment first; top the account up and run again: what was answered is kept",
    403: "refuses the API key for this model; use a key that has access to it",
    404: "has no such address or model; check `url` (up to /v1) and `model`",
}


UNSURE = "unsure"
"""The reason of an answer that its teacher gives too little chance."""
DISAGREEING = "disagreeing"
"""The reason of answers to one question that agree too little with each other."""
NOT_TAKEN = frozenset({UNSURE, DISAGREEING})
"""Reasons that are the recipe's choice among usable answers: no fault of the run."""


class CallError(Exception):
    """One record cannot be labelled: `reason` is what it is counted under."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    @property
    def is_fault(self) -> bool:
        """Whether it counts against what may fail."""
        return self.reason not in NOT_TAKEN


@dataclass(frozen=True)
class CompletionRequest:
    """One chat completion request, and the record that it is for."""

    messages: Sequence[Mapping[str, str]]
    max_tokens: int
    """Of the answer."""
    fields: JsonMapping
    """Further fields."""
    record: str
    purpose: str
    """Distinguishes requests with equal bodies that need answers of their own."""

    def bound_tokens(self) -> tuple[int, int]:
        """More input and output tokens than a call can cost: a token is a byte or longer."""
        num_bytes = sum(len(message["content"].encode()) for message in self.messages)
        return num_bytes + TOKENS_PER_MESSAGE * (len(self.messages) + 1), self.max_tokens


class Endpoint:
    """Sends requests; a response that the call log holds is reused."""

    def __init__(self, config: EndpointConfig, *, call_log: CallLog) -> None:
        """Raises: EndpointError: the key is not set, or stands in the recipe."""
        self.config = config
        self.call_log = call_log
        self.num_calls = self.num_reused = 0
        self._num_answered = self._num_consecutive_failures = 0
        self._call_ended = asyncio.Condition()
        self._stop = asyncio.Event()
        self._transport = HttpTransport(config)

    @property
    def stopping(self) -> bool:
        """Whether no further request is sent."""
        return self._stop.is_set()

    async def stop(self) -> None:
        """Send no further request; calls in flight run to their end."""
        self._stop.set()
        await self._notify_ended()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def call(self, request: CompletionRequest) -> JsonObject:
        """The response to a request, from the call log where that holds it.

        Raises:
            CallError: this request gets no answer.
            EndpointError: no request would, or it could cost too much.
        """
        body = {
            **self.config.extra,
            **request.fields,
            "model": self.config.model,
            "messages": list(request.messages),
            self.config.limit_field: request.max_tokens,
        }
        key = hash_text(json.dumps([self.config.url, body, request.purpose], sort_keys=True))
        found = self.call_log.find(key)
        if found is not None:
            self.num_reused += 1
            return self._check_model(found)
        for attempt in range(1, self.config.max_retries + 2):
            result = await self._attempt(request, body=body, key=key, attempt=attempt)
            if not isinstance(result, RequestFailure):
                self._num_answered += 1
                return self._check_model(result)
            last = attempt > self.config.max_retries
            await self._retry_or_raise(result, attempt=attempt, last=last)
        raise AssertionError("the last attempt returns or raises")

    def _check_model(self, response: JsonObject) -> JsonObject:
        """The response, if the requested model gave it; servers add a version to its name."""
        name, config = response.get("model"), self.config
        known = config.served_as or config.model
        if isinstance(name, str) and name and not name.startswith(known):
            raise EndpointError(
                f"{config.url} was called for the model {config.model!r} and answered as {name!r}, "
                f"expected {known!r}; name that model, or set `served_as: {name}` if it is the "
                "same. The answer is kept"
            )
        return response

    async def _retry_or_raise(self, failure: RequestFailure, *, attempt: int, last: bool) -> None:
        """Wait before the next attempt, or raise where there is none."""
        place = f"{self.config.url} (model {self.config.model!r})"
        if failure.status in FATAL_STATUSES:
            reason = FATAL_STATUSES[failure.status]
            raise EndpointError(f"{place} {reason}; its message: {failure.message}")
        if 300 <= failure.status < 500 and failure.status not in RETRIED_STATUSES:
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
                f"{place} demands a wait of {pause:,.0f} s, max_wait_seconds is "
                f"{self.config.max_wait_seconds:,.0f}; run again later: what was answered is "
                "kept"
            )
        logger.info("%s: %s; again in %.1f s", self.config.url, failure.message, pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), pause)

    async def _attempt(
        self, request: CompletionRequest, *, body: JsonMapping, key: str, attempt: int
    ) -> JsonObject | RequestFailure:
        bound = self._price(*request.bound_tokens())
        await self._reserve_budget(bound)
        call = uuid.uuid4().hex
        self.call_log.begin(call, key=key, bound=bound)
        self.num_calls += 1
        started = time.monotonic()
        result: JsonObject | RequestFailure = RequestFailure(0, "the run was stopped", lost=True)
        try:
            result = await self._transport.post(body)
        finally:
            failed = isinstance(result, RequestFailure)
            usage = {} if failed else read_usage(result)
            cost = self._price(*usage.values()) if usage else bound
            self.call_log.end(
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
        await self._notify_ended()
        return result

    async def _notify_ended(self) -> None:
        async with self._call_ended:
            self._call_ended.notify_all()

    async def _reserve_budget(self, bound: float) -> None:
        """Wait until the budget has room for a call that costs at most `bound`."""
        most, call_log = self.config.max_cost, self.call_log
        async with self._call_ended:
            while True:
                if self.stopping:
                    raise CallError("stopped", "another call stopped the run")
                if not most or call_log.spent + call_log.reserved + bound <= most:
                    return
                if not call_log.reserved:
                    raise EndpointError(
                        f"{call_log.spent:.6g} of max_cost {most:g} are spent, "
                        f"{most - call_log.spent:.6g} are left, and the next call may cost "
                        f"{bound:.6g}; raise max_cost and run again: what was answered is kept in "
                        f"{call_log.path} and is not paid for again"
                    )
                await self._call_ended.wait()

    def _price(self, num_input: int, num_output: int) -> float:
        config = self.config
        return (num_input * config.input_price + num_output * config.output_price) / 1e6

    def count_outcome(self, error: CallError | None) -> None:
        """Count a labelled or failed record.

        Raises:
            EndpointError: too many failed one after the other.
        """
        failed = error is not None and error.is_fault
        self._num_consecutive_failures = self._num_consecutive_failures + 1 if failed else 0
        if failed and self._num_consecutive_failures >= MAX_CONSECUTIVE_FAILURES:
            raise EndpointError(
                f"{self._num_consecutive_failures} records in a row got no usable answer from "
                f"{self.config.url} (model {self.config.model!r}); the last: {error}. Mend that "
                "and run again: what was answered is kept"
            )
