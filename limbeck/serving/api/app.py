"""The web application: routes, and what happens when it starts and stops."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

import limbeck
from limbeck.serving.api.admission import Admission
from limbeck.serving.api.chat import Completions
from limbeck.serving.api.errors import TYPES, ApiError, describe_faults, errors, not_utf8
from limbeck.serving.api.feedback import add_feedback_route
from limbeck.serving.api.health import add_health_routes
from limbeck.serving.api.models import add_model_routes
from limbeck.serving.api.request_note import RequestNote
from limbeck.serving.api.review import add_review_routes
from limbeck.serving.api.schema import ChatRequest
from limbeck.serving.config import ServeConfig
from limbeck.serving.cost_metrics import CostCollector
from limbeck.serving.journal.review import ReviewQueue
from limbeck.serving.journal.writer import Journal
from limbeck.serving.keys import Keys
from limbeck.serving.log import log_fields
from limbeck.serving.metrics import Metrics
from limbeck.serving.rollout.follow import Rollout
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.rollout.shadow import Shadows
from limbeck.serving.state_metrics import StateCollector

logger = logging.getLogger(__name__)

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    **{
        f"/static/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("app", "chat", "dashboard", "elements", "review", "service", "text")
    },
    "/static/style.css": ("style.css", "text/css; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Paths to the page's files and their types."""
ANSWER = (
    "The answer; with stream: true, server-sent events. `limbeck` holds the tier and why it was "
    "chosen; the tier `facts` is a stored fact of the domain, with its `source`."
)


def make_app(
    service: LiveService,
    *,
    config: ServeConfig,
    keys: Keys,
    journal: Journal | None = None,
    rollout: Rollout | None = None,
) -> Admission:
    """The application, behind what lets requests in; without a rollout its models never change."""
    metrics = Metrics()
    metrics.registry.register(StateCollector(service, rollout=rollout))
    metrics.registry.register(CostCollector(service, shown_tokens=metrics.tokens))

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        models = {name: tier.model_key for name, tier in service.tiers.items()}
        logger.info("start", extra=log_fields(event="start", models=models))
        service.start()
        if rollout is not None:
            rollout.start()
        yield
        await shadows.stop()
        if rollout is not None:
            await rollout.stop()
        await service.stop()
        if reviews is not None:
            reviews.close()
        logger.info("stop", extra=log_fields(event="stop"))

    app = FastAPI(
        title="Limbeck",
        version=limbeck.__version__,
        summary="Answers of tiers of small models, in OpenAI's protocol.",
        lifespan=live,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,  # it would lead past a proxy, to an address that is not its own
    )
    seconds = config.limits.request_seconds
    reviews = ReviewQueue(journal) if journal is not None else None
    keep = journal.put if journal is not None else None
    shadows = Shadows(service, metrics=metrics, keep=keep, seconds=seconds)
    completions = Completions(
        service, config=config, keys=keys, metrics=metrics, journal=journal, shadows=shadows
    )
    admission = Admission(
        app, completions=completions, keys=keys, limits=config.limits, metrics=metrics
    )

    @app.post(
        "/v1/chat/completions",
        responses={
            200: {"description": ANSWER},
            **errors(400, 401, 403, 404, 408, 413, 415, 422, 429, 503),
        },
        response_class=Response,
    )
    async def chat(body: ChatRequest) -> Response:
        """Answer a conversation."""
        raise AssertionError("it is here to be described: `Admission` hands it to `completions`")

    add_feedback_route(app, journal)
    add_review_routes(app, reviews)
    add_model_routes(app, service, default_tier=config.default_tier)
    add_health_routes(app, service, keys=keys, admission=admission, rollout=rollout)

    @app.get("/metrics", response_class=Response, responses=errors(401, 403))
    async def show_metrics() -> Response:
        """Prometheus's text format."""
        if journal is not None:
            metrics.observe_journal(journal.health())
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    for path, (name, kind) in PAGE.items():
        app.get(path, include_in_schema=False)(_serve_file(name, kind))
    app.exception_handler(ApiError)(_answer_error)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(HTTPException)(_answer_http)
    return admission


def _serve_file(name: str, kind: str) -> Callable[[], Any]:
    content = files("limbeck.serving.page").joinpath(name).read_bytes()

    async def serve() -> Response:
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return serve


async def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _respond(request, error)


def _respond(request: Request, error: ApiError) -> Response:
    """The answer, whose name goes to the log; what let the request in may have named it already."""
    note: RequestNote = request.state.note
    note.error = note.error or error.name
    return error.response()


async def _answer_invalid(request: Request, error: Exception) -> Response:
    """The first fault is named."""
    assert isinstance(error, RequestValidationError)
    return _respond(request, describe_faults(error.errors()))


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, UnicodeDecodeError):  # the framework says nothing of it
        return _respond(request, not_utf8(error.__cause__))
    detail = str(error.detail)
    methods = _methods(request)
    if error.status_code == 405:
        detail = f"{request.url.path} answers to {' and '.join(methods)}, not to {request.method}"
        if "access-control-request-method" in request.headers:
            detail += "; pages of other addresses are not let in: put both behind one address"
    if error.status_code == 404:
        detail = (
            f"no route {request.method} {request.url.path[:80]}; questions go to POST "
            "/v1/chat/completions, and GET /openapi.json lists every route"
        )
    found = ApiError(error.status_code, detail)
    assert error.status_code in TYPES or error.status_code >= 500
    response = _respond(request, found)
    response.headers.update(error.headers or {})
    if error.status_code == 405:  # the framework names the methods of the path's first route only
        response.headers["Allow"] = ", ".join(methods)
    return response


def _methods(request: Request) -> list[str]:
    path = request.url.path
    routes = [item for item in request.app.routes if isinstance(item, Route)]
    known = [item.methods or () for item in routes if item.path_regex.match(path)]
    found = {method for methods in known for method in methods}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))
