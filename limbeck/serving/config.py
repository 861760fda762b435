"""Settings of the service: the recipe's key `serve`."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from limbeck.contracts.config import Choice, Config
from limbeck.contracts.fields import NonNegativeInt, PositiveFloat, PositiveInt, Ratio
from limbeck.contracts.registry import PLACES
from limbeck.env.threads import NumThreads
from limbeck.serving.circuit import CircuitConfig
from limbeck.serving.place import LlamaCpp, Local, OpenAiHttp, Place, is_gguf, read_kind, spell_out
from limbeck.serving.price import PriceConfig

AUTO = "auto"
"""The model name that leaves the choice of the tier to the router."""
FACTS = "facts"
"""The tier of the domain's own facts, which no client names."""
GGUF_ROWS = 4
TierName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=64)]


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


class BudgetConfig(Config):
    """What a tier may be asked for in a minute; beyond it `auto` does without the tier."""

    requests_per_minute: NonNegativeInt = 0
    """0: no limit."""
    tokens_per_minute: NonNegativeInt = 0
    """Read and written, of answers that have ended; 0: no limit."""


class TierConfig(Config):
    """One model that answers."""

    name: TierName
    """What clients call it."""
    model: Annotated[str, Field(min_length=1)]
    """An entry of the recipe, a folder of a checkpoint or bundle, a served name of the model
    registry, or a GGUF file; at another server, the model's name there."""
    place: Annotated[Place, Choice(PLACES, what="place"), BeforeValidator(spell_out)] = Local()
    """Where the model is: `{kind: local}`, or `{kind: openai_http, url: ...}` at another server. A
    GGUF file is at `{kind: llama_cpp}` of itself."""
    min_confidence_ratio: Ratio | Literal["calibration"] = "calibration"
    """Answers whose tokens have a smaller geometric mean of their probabilities do not count as
    sure. `calibration`: the model's own calibration decides; a local model that has none is left
    out by `auto`, and of another server's model every answer is taken."""
    max_rows: Annotated[int, Field(gt=0, le=1024)] = 64
    """Answers that are written at once; at another server, requests that are open there. Of a GGUF
    file 4, where nothing is set, since each of them holds memory."""
    max_waiting: NonNegativeInt = 256
    """Requests that may wait for a free row; more are refused with 503."""
    max_wait_seconds: PositiveFloat = 0.5
    """Of more requests than half of `max_rows`, only those wait whose row will be free by then, by
    the pace of the latest answers; others are refused with 503."""
    max_new_tokens: PositiveInt = 512
    """Longest answer of a request that names no other; and the most that one may ask for is
    `max_new_tokens_limit`."""
    max_new_tokens_limit: PositiveInt = 4096
    max_first_token_seconds: PositiveFloat | Literal["unlimited"] = "unlimited"
    """A tier that has written nothing by then counts as failed."""
    max_answer_seconds: PositiveFloat | Literal["unlimited"] = "unlimited"
    """As above, without the answer's end. `limits.request_seconds` bounds a request as a whole."""
    circuit: CircuitConfig = CircuitConfig()
    budget: BudgetConfig = BudgetConfig()
    price: PriceConfig = PriceConfig()
    num_threads: NumThreads = "auto"
    """CPU threads."""
    max_prefix_bytes: NonNegativeInt = 64 * 2**20
    """What the model of a bundle keeps of earlier prompts and answers: a prompt that begins as one
    of them (the next turn, the same instructions) is read from there on. 0: nothing."""
    canary: CanaryConfig = CanaryConfig()
    shadow: ShadowConfig = ShadowConfig()

    @property
    def remote(self) -> OpenAiHttp | None:
        """The server that the model is at; None where it is on this machine."""
        return self.place.remote

    @property
    def wants_candidate(self) -> bool:
        """Whether the candidate of its served name is opened."""
        return self.canary.share > 0 or self.shadow.share > 0

    @model_validator(mode="before")
    @classmethod
    def _place_gguf(cls, value: object) -> object:
        """A GGUF file is opened by llama.cpp, in fewer rows."""
        if not isinstance(value, dict) or not is_gguf(value.get("model")):
            return value
        found = {"place": LlamaCpp(), **value}
        is_llama_cpp = read_kind(found["place"]) == "llama_cpp"
        return {"max_rows": GGUF_ROWS, **found} if is_llama_cpp else found

    @model_validator(mode="after")
    def _check_place(self) -> "TierConfig":
        self.place.check_tier(self)
        return self

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
    """Requests that are answered at once; more are refused with 503 before they are read."""
    request_seconds: PositiveFloat = 120.0
    """A request without an end by then gets 408 (or its stream ends), and its rows are freed."""
    drain_seconds: PositiveFloat = 30.0
    """That running requests get after SIGTERM."""


class FactTierConfig(Config):
    """The domain's own facts answer what asks for one of them beyond any doubt, before any model.

    Only requests for `auto` that are one plain question; everything else goes to the models.
    """

    source: str = ""
    """The corpus whose facts they are: an entry of the recipe, or a folder with a `facts.json`.
    Empty: models answer everything."""


class ServeConfig(Config):
    """What `limbeck serve` serves.

    Tiers stand from the largest to the smallest: `auto` begins with the last one, and goes up where
    it is not sure.
    """

    tiers: Annotated[tuple[TierConfig, ...], Field(min_length=1)]
    router: str = ""
    """A router between these tiers: an entry of stage `route`, or its folder. Empty, or while a
    tier serves another model than it was fitted on: `auto` goes by each tier's own confidence."""
    default_tier: str = AUTO
    """The first name of the list of models, which clients take where none is set. A request for an
    unknown name is an error."""
    facts: FactTierConfig = FactTierConfig()
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
        for name, whose in ((AUTO, "the router's name"), (FACTS, "the name of stored facts")):
            if name in names:
                raise ValueError(f"tiers: {name!r} is {whose}; call the tier otherwise")
        money = sorted({tier.price.currency for tier in self.tiers if tier.price.is_known})
        if len(money) > 1:
            raise ValueError(
                f"tiers: prices in {' and '.join(money)} cannot be added; give all in one currency"
            )
        if self.default_tier not in (AUTO, *names):
            raise ValueError(f"default_tier {self.default_tier!r} is none of {', '.join(names)}")
        return self
