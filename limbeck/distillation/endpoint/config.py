"""Settings of a server and of what its model writes."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from limbeck.contracts.config import Config
from limbeck.contracts.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveRatio,
    Ratio,
    Text,
)

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

    url: str
    """Up to the version, as `http://localhost:8000/v1`."""
    model: Text
    """Its name there."""
    served_as: str = ""
    """The name that its responses give, where that does not begin with `model`."""
    key_variable: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
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
    seed_field: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
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

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected an address such as http://localhost:8000/v1")
        _ = parts.port  # a ValueError where it is no number
        if parts.username or parts.password or parts.query:
            raise ValueError("an address is recorded, so it must hold no key; use key_variable")
        return url.rstrip("/").removesuffix("/chat/completions")

    @model_validator(mode="after")
    def _check_prices(self) -> "EndpointConfig":
        if self.max_cost and not (self.input_price or self.output_price):
            raise ValueError("max_cost limits nothing without input_price and output_price")
        return self


KeptSamples = Literal["best", "distinct", "all"]


class Answers(Config):
    """The teacher's answer in place of the record's own."""

    kind: Literal["answers"]
    samples: PositiveInt = 1
    """Answers drawn to each question. Of several, the one that agrees most with the others is
    taken: the mean entity F1 with them, for a label the share of them that are the same."""
    temperature: NonNegativeFloat = 0.0
    """Of drawing; 0 takes the likeliest tokens."""
    seed: NonNegativeInt = 0
    """Of drawing. Each sample of each question has a seed of its own that follows from it."""
    min_agreement_ratio: Ratio = 0.0
    """A question whose best sample agrees less with the others stays without an answer."""
    keep: KeptSamples = "best"
    """Which samples become records: the best one, each that differs, or each as often as it was
    drawn, from which a student learns the teacher's distribution over answers."""

    @model_validator(mode="after")
    def _check_samples(self) -> "Answers":
        if self.samples > 1 and not self.temperature:
            raise ValueError(
                f"samples: at temperature 0 all {self.samples} are the same; set write.temperature"
            )
        if self.samples == 1 and (self.min_agreement_ratio or self.keep != "best"):
            raise ValueError(
                "min_agreement_ratio and keep choose among several samples; raise write.samples"
            )
        if self.samples == 2 and self.keep == "best" and not self.min_agreement_ratio:
            raise ValueError("two samples agree with each other alike; ask for 3 samples or more")
        if self.seed and not self.temperature:
            raise ValueError("seed: at temperature 0 nothing is drawn; set write.temperature")
        return self


class Preferences(Config):
    """Several answers: the best one is the answer, the worst one is rejected."""

    kind: Literal["preferences"]
    samples: Annotated[int, Field(ge=2)] = 4
    temperature: PositiveFloat = 1.0
    better_by: Literal["agreement"] | Mapping[str, PositiveFloat] = "agreement"
    """Agreement with the other samples, or weights of rewards by name (`limbeck list rewards`)."""

    @model_validator(mode="after")
    def _check_samples(self) -> "Preferences":
        if self.better_by == "agreement" and self.samples < 3:
            raise ValueError("two samples agree with each other alike; ask for 3 samples or more")
        return self


class Logprobs(Config):
    """An answer, sampled at temperature 1, with the likeliest tokens at each of its places."""

    kind: Literal["logprobs"]
    top: Annotated[int, Field(ge=2, le=128)] = 20
    """Tokens at each place; many servers allow 20 at most."""
    min_aligned_ratio: PositiveRatio = 0.8
    """With fewer of the returned tokens aligned, the server's tokenizer is too unlike ours."""


Write = Answers | Preferences | Logprobs
"""What is written of a teacher's answers."""
