"""`POST /v1/chat/completions`: an answer as one object, or as a stream of events."""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from limbeck.contracts.errors import (
    BudgetError,
    EngineDownError,
    NoTierError,
    QueueFullError,
    RefusedError,
    SlowTierError,
)
from limbeck.serving.api.chat_objects import (
    Choice,
    add_event,
    count_usage,
    describe_choice,
    describe_log_probs,
    describe_route,
    make_headers,
    respond_json,
    write_event,
)
from limbeck.serving.api.errors import ApiError
from limbeck.serving.api.request_note import RequestNote
from limbeck.serving.api.schema import ChatRequest, decode_image
from limbeck.serving.config import AUTO, ServeConfig
from limbeck.serving.engine.messages import Generate
from limbeck.serving.journal.writer import Journal
from limbeck.serving.keys import Keys
from limbeck.serving.language import Language, find_language
from limbeck.serving.metrics import Metrics, Outcome
from limbeck.serving.recorder import Recording
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.rollout.shadow import Shadows
from limbeck.serving.service import Ask, End, Route, ServedEvent, Text

DONE = b"data: [DONE]\n\n"
RETRY_SECONDS = 1.0
_Wanted = TypeVar("_Wanted")


@final
class Completions:
    """Answers requests by a service, and counts what it does."""

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

    async def __call__(self, body: ChatRequest, request: Request) -> Response:
        """The answer to a request.

        Raises:
            ApiError: the model does not exist, cannot read it, or is down.
        """
        if body.model != AUTO and body.model not in self._service.tiers:
            known = ", ".join([AUTO, *self._service.tiers])
            raise ApiError(
                404,
                f"no model {body.model!r}; there are {known}",
                code="model_not_found",
                param="model",
            )
        note: RequestNote = request.state.note
        note.is_stream = bool(body.stream)
        id_ = f"chatcmpl-{note.unique}"
        events = self._answer(body, request, id_=id_)
        if body.stream:
            return await self._stream(body, events, id_=id_, request=request)
        async with aclosing(events):
            return await self._whole(body, events, id_=id_, request=request)

    async def _answer(
        self, body: ChatRequest, request: Request, *, id_: str
    ) -> AsyncGenerator[ServedEvent]:
        """The service's events, counted and recorded; what it raises, as errors of the protocol."""
        entry, note = request.state.key, request.state.note
        recording = Recording(self._journal, id_, body.model, body.conversation())
        with (
            _store_images(body) as images,
            self._conclude(note, recording),
            recording,
            _as_api_errors(self._config.limits.request_seconds),
        ):
            generate = replace(
                body.generate(),
                images=images,
                owner=entry.name if entry is not None else "",
                request_id=note.request_id,
                traceparent=note.traceparent,
            )
            show_unsure = body.limbeck is not None and body.limbeck.show_unsure
            sticky = body.sticky(of=entry.name if entry is not None else "")
            asked = Ask(body.model, generate, show_unsure, self._language(generate), sticky)
            async with (
                asyncio.timeout(self._config.limits.request_seconds),
                aclosing(self._service.answer(asked)) as events,
            ):
                async for event in events:
                    recording.see(event)
                    if isinstance(event, End) and recording.route:
                        self._metrics.see_end(recording.route, event)
                        if entry is not None:
                            num_tokens = event.num_prompt_tokens + event.num_tokens
                            self._keys.note_tokens(entry.name, num_tokens)
                    yield event
        self._shadows.offer(asked, recording)

    @contextmanager
    def _conclude(self, note: RequestNote, recording: Recording) -> Iterator[None]:
        """Gives what became of a request to the log and the metrics, however it ended."""
        try:
            yield
        except ApiError as error:
            note.error = error.name
            raise
        finally:
            found, route = recording.exchange, recording.route
            assert found is not None
            note.exchange, note.role = found, route.label if route else ""
            note.failed_tiers = dict(route.failures) if route else {}
            error = "" if recording.end else note.error or found.status
            self._metrics.see_outcome(
                Outcome(
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

    async def _whole(
        self, body: ChatRequest, events: AsyncGenerator[ServedEvent], *, id_: str, request: Request
    ) -> Response:
        choices = [Choice() for _ in range(body.n or 1)]
        gone = asyncio.ensure_future(_wait_gone(request))
        try:
            route = await _unless_gone(_gather(events, choices), gone)
        except _GoneError:
            return Response(status_code=499)  # nobody reads it
        finally:
            gone.cancel()
        choices = [item for item in choices if item.end is not None]
        content = {
            "id": id_,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": route.tier or body.model,
            "choices": [describe_choice(index, item) for index, item in enumerate(choices)],
            "usage": count_usage([item.end for item in choices if item.end]),
            "limbeck": describe_route(route, [item.end for item in choices if item.end]),
        }
        return respond_json(content, headers=make_headers(route))

    async def _stream(
        self, body: ChatRequest, events: AsyncGenerator[ServedEvent], *, id_: str, request: Request
    ) -> Response:
        # What comes first is awaited here, so that an error before it has a status of its own.
        gone = asyncio.ensure_future(_wait_gone(request))
        try:
            route = await _unless_gone(anext(events), gone)
            first = await _unless_gone(anext(events), gone)
        except _GoneError:
            return Response(status_code=499)  # nobody reads it
        finally:
            gone.cancel()
        assert isinstance(route, Route) and isinstance(first, Text | End)
        head = {
            "id": id_,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": route.tier or body.model,
        }
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        later = _put_first(first, events)
        chunks = _write_chunks(head, later, route=route, with_usage=with_usage)
        return StreamingResponse(
            chunks,
            media_type="text/event-stream",
            headers={**make_headers(route), "Cache-Control": "no-store"},
        )


async def _put_first(
    first: Text | End, events: AsyncGenerator[ServedEvent]
) -> AsyncGenerator[Text | End]:
    async with aclosing(events):
        yield first
        async for event in events:
            assert not isinstance(event, Route)
            yield event


async def _write_chunks(
    head: dict[str, Any], events: AsyncGenerator[Text | End], *, route: Route, with_usage: bool
) -> AsyncIterator[bytes]:
    ends: list[End] = []
    begun: set[int] = set()
    nothing = {"usage": None} if with_usage else {}
    try:
        async with aclosing(events):
            async for event in events:
                delta: dict[str, Any] = {} if event.choice in begun else {"role": "assistant"}
                begun.add(event.choice)
                choice: dict[str, Any] = {
                    "index": event.choice,
                    "delta": delta,
                    "finish_reason": None,
                }
                extra: dict[str, Any] = {}
                if isinstance(event, Text):
                    delta["content"] = event.text
                    choice["logprobs"] = describe_log_probs(event.tokens)
                else:
                    ends.append(event)
                    choice["finish_reason"] = event.reason
                    extra = {"limbeck": describe_route(route, [event])}
                yield write_event({**head, "choices": [choice], **nothing, **extra})
        if with_usage:
            yield write_event({**head, "choices": [], "usage": count_usage(ends)})
    except ApiError as error:
        yield write_event(error.content())
    yield DONE


async def _gather(events: AsyncGenerator[ServedEvent], choices: Sequence[Choice]) -> Route:
    """Who answered; the answers are added to the choices."""
    route = Route("", "named")
    async for event in events:
        if isinstance(event, Route):
            route = event
        else:
            add_event(choices, event)
    return route


class _GoneError(Exception):
    """The client has hung up."""


async def _unless_gone(wanted: Awaitable[_Wanted], gone: "asyncio.Future[None]") -> _Wanted:
    """What was wanted.

    Raises:
        _GoneError: the client hung up first.
    """
    coming = asyncio.ensure_future(wanted)
    try:
        await asyncio.wait((coming, gone), return_when=asyncio.FIRST_COMPLETED)
        if not coming.done():
            raise _GoneError
        return coming.result()
    finally:
        if not coming.done():
            coming.cancel()
            await asyncio.wait((coming,))


async def _wait_gone(request: Request) -> None:
    """Returns when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextmanager
def _as_api_errors(seconds: float) -> Iterator[None]:
    """What the service raises, as errors of the protocol."""
    try:
        yield
    except TimeoutError:
        raise ApiError(408, f"no answer within {seconds:g} s") from None
    except RefusedError as error:
        code = "context_length_exceeded" if error.is_too_long else ""
        raise ApiError(400, str(error), code=code, param="messages") from None
    except NoTierError as error:
        why = "queue_full" if error.is_full else "model_down"
        raise ApiError(503, str(error), code=why, retry_after=error.retry_seconds) from None
    except QueueFullError as error:
        why = "over_budget" if isinstance(error, BudgetError) else "queue_full"
        raise ApiError(503, str(error), code=why, retry_after=error.retry_seconds) from None
    except EngineDownError as error:
        why = "model_slow" if isinstance(error, SlowTierError) else "model_down"
        raise ApiError(503, str(error), code=why, retry_after=RETRY_SECONDS) from None


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
