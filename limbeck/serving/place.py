"""Where a tier's model is: on this machine, or behind an OpenAI-compatible server."""

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator

from limbeck.contracts.config import Config
from limbeck.contracts.fields import PositiveFloat, PositiveInt

Option = Literal["n", "seed", "top_k"]
"""Settings of a request that not every server reads."""


class Local(Config):
    """The model is opened by this service."""

    kind: Literal["local"] = "local"


class LlamaCpp(Config):
    """The model is a GGUF file, opened by llama.cpp in a process of this service."""

    kind: Literal["llama_cpp"] = "llama_cpp"
    context_tokens: PositiveInt = 2048
    """Prompt and answer of a request together; each of the tier's `max_rows` has memory for it."""


class OpenAiHttp(Config):
    """The model is behind a server that speaks OpenAI's protocol: vLLM, llama.cpp, Limbeck."""

    kind: Literal["openai_http"]
    url: str
    """Up to the version, as `http://10.0.0.7:8000/v1`."""
    key_variable: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
    """The environment variable that holds the API key, never the key itself; empty: none."""
    connect_seconds: PositiveFloat = 5.0
    """For a connection; without one by then the tier is down."""
    idle_seconds: PositiveFloat = 60.0
    """Without a byte of an answer for so long, the tier is down."""
    logprobs: bool = True
    """Whether log-probabilities are asked for: without them an answer has no confidence, and
    clients cannot ask for them."""
    options: tuple[Option, ...] = ("n", "seed", "top_k")
    """Those that the server reads; a request that needs another one is refused with 400."""
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The server's field for the longest answer."""
    redact: Literal["outside", "always", "never"] = "outside"
    """Whether what identifies a person is taken out of a conversation before it is sent;
    `outside`: unless the server is on this machine."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected an address such as http://10.0.0.7:8000/v1")
        _ = parts.port  # a ValueError where it is no number
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("an address is recorded, so it must hold no key; use key_variable")
        return url.rstrip("/").removesuffix("/chat/completions")

    @property
    def host(self) -> str:
        """The server's name or number."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Where it listens."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def redacts(self) -> bool:
        """Whether conversations are redacted."""
        return self.redact == "always" or (self.redact == "outside" and not is_loopback(self.host))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_gguf(model: object) -> bool:
    """Whether a tier's model is a GGUF file."""
    return isinstance(model, str) and model.lower().endswith(".gguf")


def read_kind(place: object) -> str:
    """The kind of a place, as a recipe or a program gives it."""
    if isinstance(place, Local | LlamaCpp | OpenAiHttp):
        return place.kind
    spelled = _spell_out(place)
    return str(spelled.get("kind")) if isinstance(spelled, Mapping) else ""


def _spell_out(value: Any) -> Any:
    """`local` for `{kind: local}`; a mapping without `kind` is local."""
    if isinstance(value, str):
        return {"kind": value}
    return {"kind": "local", **value} if isinstance(value, Mapping) else value


Place = Annotated[
    Local | LlamaCpp | OpenAiHttp, Field(discriminator="kind"), BeforeValidator(_spell_out)
]
