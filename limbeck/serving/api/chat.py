"""`POST /v1/chat/completions`: an answer as one object, or as a stream of events."""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, final

from starlette.types import Receive, Scope, Send

from limbeck.contracts.errors import (
    BudgetError,
    CircuitOpenError,
    EngineDownError,
    NoTierError,
    QueueFullError,
    RefusedError,
    ServingError,
    SlowTierError,
)
from limbeck.serving.api.chat_objects import (
    ChatChoice,
    add_event,
    count_usage,
    describe_choice,
    describe_log_probs,
    describe_route,
    make_headers,
    write_event,
    write_json,
)
from limbeck.serving.api.connection import UntilGone, read_body, send_head, send_json
from limbeck.serving.api.errors import ApiError, no_model
from limbeck.serving.api.request_note import RequestNote
from limbeck.serving.api.schema import ChatRequest, decode_image
from limbeck.serving.config import AUTO, ServeConfig
from limbeck.serving.engine.messages import Generate
from limbeck.serving.journal.writer import Journal
from limbeck.serving.keys import KeyEntry, Keys
from limbeck.serving.language import Language, find_language
from limbeck.serving.metrics import Metrics, RequestEnd
from limbeck.serving.recorder import Recording
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.rollout.shadow import Shadows
from limbeck.serving.service import AnswerText, End, Route, ServedEvent, ServiceRequest

DONE = b"data: [DONE]\n\n"
NO_STORE = (b"cache-control", b"no-store")
RETRY_SECONDS = 1.0


@final
class Completions:
    """Answers requests by a service, and counts what it does; an application of ASGI."""

    def __init__(
        self,
        service: LiveService,
        *,
        config: ServeConfig,
        keys: Keys,
        metrics: Metrics,
        journal: Journal | None,
        shadows: Shadows,
    ) -> None:
        self._service = service
        self._config = config
        self._keys = keys
        self._metrics = metrics
        self._journal = journal
        self._shadows = shadows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request.

        Raises:
            ApiError: it is faulty, or the model does not exist, cannot read it, or is down.
        """
        seconds = self._config.limits.request_seconds
        body = await read_body(receive, ChatRequest, seconds=seconds)
        if body.model != AUTO and body.model not in self._service.tiers:
            raise no_model(body.model, known=[AUTO, *self._service.tiers])
        note: RequestNote = scope["state"]["note"]
        note.is_stream = bool(body.stream)
        id_ = f"chatcmpl-{note.unique}"
        has_begun = False
        async with (
            UntilGone(receive) as client,
            aclosing(self._answer(body, scope["state"]["key"], note, id_=id_)) as events,
        ):
            if not body.stream:
                route, choices = await _gather(events, num_choices=body.n or 1)
                content = _describe(body, route, choices, id_=id_)
                await send_json(send, write_json(content), headers=make_headers(route))
                return
            # What comes first is awaited here, so that an error before it has its own status.
            route, first = await anext(events), await anext(events)
            assert isinstance(route, Route) and isinstance(first, AnswerText | End)
            headers = [*make_headers(route), NO_STORE]
            await send_head(send, kind=b"text/event-stream; charset=utf-8", headers=headers)
            has_begun = True
            async for chunk in _write_chunks(body, route, first, events, id_=id_):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        if client.is_gone and not has_begun:  # nobody reads it, but the log does
            await send({"type": "http.response.start", "status": 499, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def _answer(
        self, body: ChatRequest, entry: KeyEntry | None, note: RequestNote, *, id_: str
    ) -> AsyncGenerator[ServedEvent]:
        """The service's events, counted and recorded; what it raises, as errors of the protocol."""
        owner = entry.name if entry is not None else ""
        recording = Recording(self._journal, id_, body.model, body.conversation())
        seconds = self._config.limits.request_seconds
        try:
            with _store_images(body) as images, recording:
                generate = body.generate(
                    recording.messages,
                    images=images,
                    owner=owner,
                    request_id=note.request_id,
                    traceparent=note.traceparent,
                )
                show_unsure = body.limbeck is not None and body.limbeck.show_unsure
                sticky, language = body.sticky(of=owner), self._language(generate)
                incoming = ServiceRequest(body.model, generate, show_unsure, language, sticky)
                async with (
                    asyncio.timeout(seconds),
                    aclosing(self._service.answer(incoming)) as events,
                ):
                    async for event in events:
                        recording.observe(event)
                        if isinstance(event, End) and recording.route:
                            self._metrics.observe_end(recording.route, event)
                            if entry is not None:
                                num_tokens = event.num_prompt_tokens + event.num_tokens
                                self._keys.note_tokens(owner, num_tokens)
                        yield event
        except (TimeoutError, ServingError) as error:
            found = _as_api_error(error, seconds=seconds)
            note.error = found.name
            raise found from None
        except ApiError as error:
            note.error = error.name
            raise
        finally:
            self._conclude(note, recording)
        self._shadows.offer(incoming, recording)

    def _conclude(self, note: RequestNote, recording: Recording) -> None:
        """Gives what became of a request to the log and the metrics, however it ended."""
        found, route = recording.exchange, recording.route
        if found is None:
            return  # its images were none
        note.exchange, note.role = found, route.label if route else ""
        note.failed_tiers = dict(route.failures) if route else {}
        error = "" if recording.end else note.error or found.status
        self._metrics.observe_outcome(
            RequestEnd(
                requested_model=found.requested_model,
                route=route,
                end=recording.end,
                error=error,
                first_seconds=found.first_token_seconds,
                total_seconds=found.total_seconds,
            )
        )

    def _language(self, generate: Generate) -> Language:
        chosen = self._config.language
        return find_language(generate.messages[-1].content) if chosen == "auto" else chosen


async def _gather(
    events: AsyncGenerator[ServedEvent], *, num_choices: int
) -> tuple[Route, Sequence[ChatChoice]]:
    """Who answered, and the answers."""
    route, choices = Route("", "named"), [ChatChoice() for _ in range(num_choices)]
    async for event in events:
        if isinstance(event, Route):
            route = event
        else:
            add_event(choices, event)
    return route, [item for item in choices if item.end is not None]


def _describe(
    body: ChatRequest, route: Route, choices: Sequence[ChatChoice], *, id_: str
) -> dict[str, Any]:
    """An answer as one object."""
    ends = [item.end for item in choices if item.end]
    return {
        "id": id_,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": route.tier or body.model,
        "choices": [describe_choice(index, item) for index, item in enumerate(choices)],
        "usage": count_usage(ends),
        "limbeck": describe_route(route, ends),
    }


async def _write_chunks(
    body: ChatRequest,
    route: Route,
    first: AnswerText | End,
    later: AsyncGenerator[ServedEvent],
    *,
    id_: str,
) -> AsyncIterator[bytes]:
    """An answer as events of a stream."""
    head = {
        "id": id_,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": route.tier or body.model,
    }
    with_usage = body.stream_options is not None and body.stream_options.include_usage
    nothing = {"usage": None} if with_usage else {}
    ends: list[End] = []
    begun: set[int] = set()
    event: ServedEvent | None = first
    try:
        while event is not None:
            assert not isinstance(event, Route)
            delta: dict[str, Any] = {} if event.choice in begun else {"role": "assistant"}
            begun.add(event.choice)
            choice: dict[str, Any] = {"index": event.choice, "delta": delta, "finish_reason": None}
            extra: dict[str, Any] = {}
            if isinstance(event, AnswerText):
                delta["content"] = event.text
                choice["logprobs"] = describe_log_probs(event.tokens)
            else:
                ends.append(event)
                choice["finish_reason"] = event.reason
                extra = {"limbeck": describe_route(route, [event])}
            yield write_event({**head, "choices": [choice], **nothing, **extra})
            event = await anext(later, None)
        if with_usage:
            yield write_event({**head, "choices": [], "usage": count_usage(ends)})
    except ApiError as error:
        yield write_event(error.content())
    yield DONE


def _as_api_error(error: TimeoutError | ServingError, *, seconds: float) -> ApiError:
    """What the service raises, as errors of the protocol."""
    if isinstance(error, TimeoutError):
        return ApiError(408, f"no answer within {seconds:g} s")
    text = str(error)
    if isinstance(error, RefusedError):
        code = "context_length_exceeded" if error.is_too_long else ""
        return ApiError(400, text, code=code, param="messages")
    if isinstance(error, NoTierError):
        why = "queue_full" if error.is_full else "model_down"
        return ApiError(503, text, code=why, retry_after=error.retry_seconds)
    if isinstance(error, QueueFullError):
        why = "over_budget" if isinstance(error, BudgetError) else "queue_full"
        return ApiError(503, text, code=why, retry_after=error.retry_seconds)
    if isinstance(error, CircuitOpenError):
        return ApiError(503, text, code="circuit_open", retry_after=error.retry_seconds)
    assert isinstance(error, EngineDownError)
    why = "model_slow" if isinstance(error, SlowTierError) else "model_down"
    return ApiError(503, text, code=why, retry_after=RETRY_SECONDS)


@contextmanager
def _store_images(body: ChatRequest) -> Iterator[tuple[Path, ...]]:
    """The request's images as files, for as long as it is answered."""
    urls = [url for message in body.messages for url in message.image_urls()]
    if not urls:
        yield ()
        return
    with tempfile.TemporaryDirectory(prefix="limbeck-images-") as folder:
        paths = []
        for index, url in enumerate(urls):
            try:
                content = decode_image(url)
            except ValueError as error:
                raise ApiError(400, str(error), param="messages") from None
            paths.append(Path(folder) / f"{index}.img")
            paths[-1].write_bytes(content)
        yield tuple(paths)
