"""Settings of a server whose model answers questions."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import field_validator, model_validator

from limbeck.contracts.config import Config
from limbeck.contracts.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Text,
)
from limbeck.contracts.openai_server import ServerUrl, VariableName

TAKEN = frozenset(
    {
        "messages",
        "model",
        "stream",
        "n",
        "temperature",
        "logprobs",
        "top_logprobs",
        "max_tokens",
        "max_completion_tokens",
    }
)
"""Fields of a request that are not for `extra`."""


class EndpointConfig(Config):
    """A model behind an OpenAI-compatible server, and how it is called."""

    url: ServerUrl
    """Up to the version, as `http://localhost:8000/v1`."""
    model: Text
    """Its name there."""
    served_as: str = ""
    """The name that its responses give, where that does not begin with `model`."""
    key_variable: VariableName = ""
    """The environment variable that holds the API key, never the key itself; empty: none."""
    max_concurrent: PositiveInt = 8
    """Records in flight at the same time."""
    timeout_seconds: PositiveFloat = 120.0
    """Of one call, until the whole answer is there."""
    max_retries: NonNegativeInt = 5
    """Of one call, after no answer, a broken one, or a status that allows a retry."""
    retry_seconds: NonNegativeFloat = 1.0
    """Wait before the first retry; it doubles, unless the server sets it (Retry-After)."""
    max_wait_seconds: PositiveFloat = 300.0
    """A server that demands a longer wait stops the run."""
    input_price: NonNegativeFloat = 0.0
    """Of a million tokens, in any currency."""
    output_price: NonNegativeFloat = 0.0
    """Of a million tokens, in the same currency."""
    max_cost: NonNegativeFloat = 0.0
    """Of all calls for this entry, earlier runs included, in that currency; 0: no limit."""
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The server's field for the longest answer."""
    seed_field: VariableName = ""
    """The server's field for the seed of a drawn answer, as `seed`; empty: none is sent."""
    extra: Mapping[str, Any] = {}
    """Further fields of every request, under the server's names."""

    @field_validator("extra")
    @classmethod
    def _check_extra(cls, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        if taken := sorted(extra.keys() & TAKEN):
            raise ValueError(f"{taken} are set by other fields, or not to be set; remove them")
        return extra

    @model_validator(mode="after")
    def _check_seed_field(self) -> "EndpointConfig":
        if self.seed_field in self.extra:
            raise ValueError(f"extra: {self.seed_field!r} is set by seed_field; remove it")
        return self

    @model_validator(mode="after")
    def _check_prices(self) -> "EndpointConfig":
        if self.max_cost and not (self.input_price or self.output_price):
            raise ValueError("max_cost limits nothing without input_price and output_price")
        return self
