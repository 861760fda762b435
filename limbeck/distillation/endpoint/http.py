"""One request to an OpenAI-compatible server: its address, the API key, the response."""

import asyncio
import email.utils
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx2

from limbeck.contracts.json_data import JsonMapping, JsonObject
from limbeck.contracts.openai_server import hide_key, read_key
from limbeck.distillation.endpoint.config import EndpointConfig

MAX_QUOTED_CHARS = 300


@dataclass
class RequestFailure:
    """A request that got no answer."""

    status: int
    message: str
    wait_seconds: float | None = None
    lost: bool = False
    """Whether the server may have computed, and charge for, an answer that never came."""


class HttpTransport:
    """Sends requests with the API key; redacts the key from whatever comes back."""

    def __init__(self, config: EndpointConfig) -> None:
        """Raises: EndpointError: the key is not set, or stands in the recipe."""
        self.config = config
        key = read_key(config.key_variable, recorded=config.model_dump_json())
        self._key = key
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=config.timeout_seconds,
            limits=httpx2.Limits(max_connections=config.max_concurrent),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def post(self, body: JsonMapping) -> JsonObject | RequestFailure:
        """The response to one request, or why there is none."""
        try:
            async with asyncio.timeout(self.config.timeout_seconds):
                response = await self._client.post(
                    f"{self.config.url}/chat/completions", json=dict(body)
                )
        except (TimeoutError, httpx2.TimeoutException):
            return RequestFailure(0, f"no answer in {self.config.timeout_seconds:g} s", lost=True)
        except httpx2.HTTPError as error:
            lost = not isinstance(error, httpx2.ConnectError)
            return RequestFailure(
                0, f"{type(error).__name__} {self._redact(str(error))}", lost=lost
            )
        if response.status_code != 200:
            wait = _read_wait(response.headers.get("retry-after", ""))
            text = self._redact(response.text) or "nothing more"
            return RequestFailure(
                response.status_code, f"status {response.status_code}: {text}", wait
            )
        try:
            value = response.json()
            if not isinstance(value["choices"][0]["message"], dict):
                raise TypeError("'message' is no object")
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            text = self._redact(response.text) or "nothing"
            return RequestFailure(200, f"not a chat completion: {text}", lost=True)
        # A server may echo what it was sent; a key in a log would be a key in a backup.
        return json.loads(hide_key(json.dumps(value), key=self._key))

    def _redact(self, text: str) -> str:
        return hide_key(text, key=self._key)[:MAX_QUOTED_CHARS]


def read_usage(response: JsonMapping) -> dict[str, int]:
    """Tokens in and out; nothing where the server returns no usage."""
    found = response.get("usage")
    names = ("prompt_tokens", "completion_tokens")
    if not isinstance(found, dict):
        return {}
    counts = {name: found.get(name) for name in names}
    usage = {name: num for name, num in counts.items() if isinstance(num, int) and num >= 0}
    return usage if len(usage) == len(names) else {}


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
