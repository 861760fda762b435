"""Whether another server is there, and its model."""

import asyncio
import json
from urllib.parse import urlsplit

import httpx2

from limbeck.contracts.json_data import Json
from limbeck.serving.place import OpenAiHttp

MAX_SECONDS = 30.0
"""For a list of models, which takes no computing."""
MAX_BODY_BYTES = 2**22
"""Of a list of models."""


async def find_fault(client: httpx2.AsyncClient, place: OpenAiHttp, *, model: str) -> str:
    """Why no model answers at a place; '' where it is ready.

    A server is ready that lists its models; one without such a list, by `/healthz/ready`.
    """
    root = "{0.scheme}://{0.netloc}".format(urlsplit(place.url))
    try:
        async with asyncio.timeout(place.connect_seconds + min(place.idle_seconds, MAX_SECONDS)):
            status, found = await _get(client, f"{place.url}/models")
            if status in (404, 405):
                status, found = await _get(client, f"{root}/healthz/ready")
    except (TimeoutError, httpx2.TimeoutException):
        return "no answer in time"
    except httpx2.ConnectError as error:
        return f"no connection: {error}"
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return f"no answer ({type(error).__name__})"
    if status in (401, 403):
        return f"its server refuses the key ({status})"
    if status != 200:
        return f"its server is not ready (status {status})"
    return _find_state(found, model=model)


async def _get(client: httpx2.AsyncClient, url: str) -> tuple[int, Json]:
    content = b""
    async with client.stream("GET", url) as response:
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > MAX_BODY_BYTES:
                break
    try:
        return response.status_code, json.loads(content)
    except (ValueError, RecursionError):
        return response.status_code, None


def _find_state(found: Json, *, model: str) -> str:
    """What a Limbeck service says of its model; other servers open theirs before they listen."""
    try:
        entry = next(item for item in found["data"] if item["id"] == model)
        state = entry.get("limbeck", {}).get("state", "ready")
    except (TypeError, KeyError, AttributeError, StopIteration):
        return ""
    return "" if state == "ready" else f"its server's model is {state}"
