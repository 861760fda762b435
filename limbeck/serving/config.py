"""Settings of the service: the recipe's key `serve`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from limbeck.contracts.config import Config
from limbeck.contracts.fields import NonNegativeInt, PositiveFloat, PositiveInt, Ratio
from limbeck.env.threads import NumThreads

AUTO = "auto"
"""The model name that leaves the choice of the tier to the router."""
TierName = Annotated[str, Field(pattern=r"[A-Za-z][A-Za-z0-9_-]*$", max_length=64)]


class CanaryConfig(Config):
    """The candidate of a served name answers some of a tier's requests."""

    share: Ratio = 0.0
    """Of the conversations; one that is in it stays in it. 0: the candidate does not answer."""


class ShadowConfig(Config):
    """The candidate of a served name answers copies of requests, which nobody waits for."""

    share: Ratio = 0.0
    """Of the conversations. 0: none."""
    max_running: PositiveInt = 2
    """Copies that are answered at once; more are left out, as are all while requests wait."""


class TierConfig(Config):
    """One model that answers."""

    name: TierName
    """What clients call it."""
    model: str
    """An entry of the recipe, a folder of a checkpoint or bundle, or a served name of the model
    registry."""
    max_rows: Annotated[int, Field(gt=0, le=1024)] = 64
    """Answers that are written at once."""
    max_waiting: NonNegativeInt = 256
    """Requests that may wait for a free row; more are refused with 503."""
    max_wait_seconds: PositiveFloat = 0.5
    """Of more requests than half of `max_rows`, only those wait whose row will be free by then, by
    the pace of the latest answers; others are refused with 503."""
    max_new_tokens: PositiveInt = 512
    """Longest answer of a request that names no other; and the most that one may ask for is
    `max_new_tokens_limit`."""
    max_new_tokens_limit: PositiveInt = 4096
    num_threads: NumThreads = "auto"
    """CPU threads."""
    canary: CanaryConfig = CanaryConfig()
    shadow: ShadowConfig = ShadowConfig()

    @property
    def wants_candidate(self) -> bool:
        """Whether the candidate of its served name is opened."""
        return self.canary.share > 0 or self.shadow.share > 0

    @model_validator(mode="after")
    def _check_tokens(self) -> "TierConfig":
        if self.max_new_tokens > self.max_new_tokens_limit:
            raise ValueError(
                f"max_new_tokens {self.max_new_tokens} is above max_new_tokens_limit "
                f"{self.max_new_tokens_limit}"
            )
        return self


class LimitsConfig(Config):
    """What the door lets in."""

    max_body_bytes: PositiveInt = 8 * 2**20
    """A larger request is refused with 413."""
    max_requests: PositiveInt = 512
    """Requests in the house at once; more are refused with 503 before they are read."""
    request_seconds: PositiveFloat = 120.0
    """A request without an end by then gets 408 (or its stream ends), and its rows are freed."""
    drain_seconds: PositiveFloat = 30.0
    """That running requests get after SIGTERM."""


class ServeConfig(Config):
    """What `limbeck serve` serves.

    Tiers stand from the largest to the smallest: `auto` begins with the last one, and goes up where
    it is not sure.
    """

    tiers: Annotated[tuple[TierConfig, ...], Field(min_length=1)]
    default_tier: str = AUTO
    """What a request for an unknown name would get is an error; this is the first name of the
    list of models, which clients take where they are told nothing."""
    limits: LimitsConfig = LimitsConfig()
    country: str = ""
    """Whose emergency numbers are given; empty: those of the domain's own rules."""
    language: Literal["auto", "zh", "en"] = "auto"
    """Of what the service itself writes; `auto`: the question's."""

    @model_validator(mode="after")
    def _check_names(self) -> "ServeConfig":
        names = [tier.name for tier in self.tiers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"tiers: two are called {twice[0]!r}; rename one")
        if AUTO in names:
            raise ValueError(f"tiers: {AUTO!r} is the router's name; call the tier otherwise")
        if self.default_tier not in (AUTO, *names):
            raise ValueError(f"default_tier {self.default_tier!r} is none of {', '.join(names)}")
        return self
