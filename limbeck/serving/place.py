"""Where a tier's model is: on this machine, or behind an OpenAI-compatible server."""

import abc
import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlsplit

from typing_extensions import override

from limbeck.contracts.config import Config
from limbeck.contracts.fields import PositiveFloat, PositiveInt
from limbeck.contracts.openai_server import ServerUrl, VariableName, read_key

if TYPE_CHECKING:
    from limbeck.serving.config import TierConfig
    from limbeck.serving.open import ServedModel
    from limbeck.serving.tier import Tier

Option = Literal["n", "seed", "top_k"]
"""Settings of a request that not every server reads."""


class Place(Config, abc.ABC):
    """Base of every place that a tier's model can be at."""

    kind: str
    """The name of the place, as in the registry."""

    @abc.abstractmethod
    def check_tier(self, tier: "TierConfig") -> None:
        """Refuse settings of a tier that mean nothing at the place.

        Raises:
            ValueError: there are some.
        """

    @abc.abstractmethod
    def open_tier(
        self, tier: "TierConfig", *, model: "ServedModel | None", niceness: int
    ) -> "Tier":
        """A tier whose model is still to be started; the nicer, the less processor time it takes.

        `model` is None at another server.

        Raises:
            CheckpointError: a policy beside the model is damaged.
            EndpointError: the key of another server is not set.
        """

    @property
    def remote(self) -> "OpenAiHttp | None":
        """The server that the model is at; None where it is on this machine."""
        return None


class Local(Place):
    """The model is opened by this service."""

    kind: Literal["local"] = "local"

    @override
    def check_tier(self, tier: "TierConfig") -> None:
        if is_gguf(tier.model):
            raise ValueError(
                f"{tier.model} is a GGUF file; set place.kind: llama_cpp, or take it out"
            )

    @override
    def open_tier(
        self, tier: "TierConfig", *, model: "ServedModel | None", niceness: int
    ) -> "Tier":
        from limbeck.contracts.answer_policy import read_policy
        from limbeck.serving.engine.engine import ProcessEngine
        from limbeck.serving.engine.worker import WorkerSettings
        from limbeck.serving.tier import Tier

        assert model is not None
        engine = ProcessEngine(
            WorkerSettings(
                model.folder, tier.max_rows, tier.num_threads, niceness, tier.max_prefix_bytes
            ),
            name=tier.name,
            max_waiting=tier.max_waiting,
            max_wait_seconds=tier.max_wait_seconds,
        )
        return Tier(tier, engine, read_policy(model.folder), model.key)


class LlamaCpp(Place):
    """The model is a GGUF file, opened by llama.cpp in a process of this service."""

    kind: Literal["llama_cpp"] = "llama_cpp"
    context_tokens: PositiveInt = 2048
    """Prompt and answer of a request together; each of the tier's `max_rows` has memory for it."""

    @override
    def check_tier(self, tier: "TierConfig") -> None:
        if not is_gguf(tier.model):
            raise ValueError(
                f"place: llama.cpp reads GGUF files; {tier.model!r} does not end in .gguf"
            )
        if tier.wants_candidate:
            raise ValueError(
                "a GGUF file has no candidate in the model registry; take out canary and shadow"
            )
        _refuse_prefixes(tier)

    @override
    def open_tier(
        self, tier: "TierConfig", *, model: "ServedModel | None", niceness: int
    ) -> "Tier":
        from limbeck.contracts.answer_policy import AnswerPolicy
        from limbeck.serving.engine.llama_cpp import LlamaCppEngine
        from limbeck.serving.tier import Tier

        assert model is not None
        return Tier(tier, LlamaCppEngine(tier, self, path=model.folder), AnswerPolicy(), model.key)


class OpenAiHttp(Place):
    """The model is behind a server that speaks OpenAI's protocol: vLLM, llama.cpp, Limbeck."""

    kind: Literal["openai_http"]
    url: ServerUrl
    """Up to the version, as `http://10.0.0.7:8000/v1`."""
    key_variable: VariableName = ""
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

    @property
    @override
    def remote(self) -> "OpenAiHttp":
        return self

    @override
    def check_tier(self, tier: "TierConfig") -> None:
        _refuse_prefixes(tier)
        if tier.wants_candidate:
            raise ValueError(
                "a model at another server has no candidate in the registry of this one; take out "
                "canary and shadow"
            )
        if tier.num_threads != "auto":
            raise ValueError(
                "num_threads: the other server's threads are not set here; take it out"
            )
        if tier.min_confidence_ratio not in ("calibration", 0.0) and not self.logprobs:
            raise ValueError(
                "min_confidence_ratio needs the tokens' probabilities; set place.logprobs: true"
            )

    @override
    def open_tier(
        self, tier: "TierConfig", *, model: "ServedModel | None", niceness: int
    ) -> "Tier":
        from limbeck.contracts.answer_policy import AnswerPolicy
        from limbeck.serving.engine.remote import RemoteEngine
        from limbeck.serving.tier import Tier

        recorded, place = tier.model_dump_json(), f"tier {tier.name}: "
        key = read_key(self.key_variable, recorded=recorded, place=place)
        engine = RemoteEngine(tier, self, key=key)
        # Another server tells no content hash; the model and where it is stand for one.
        key = f"{quote(tier.model, safe='/:._+-')}@{self.host}:{self.port}"
        return Tier(tier, engine, AnswerPolicy(), key)


def _refuse_prefixes(tier: "TierConfig") -> None:
    default = type(tier).model_fields["max_prefix_bytes"].default
    if tier.max_prefix_bytes != default:
        raise ValueError("max_prefix_bytes: only a bundle keeps prompts here; take it out")


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
    if isinstance(place, Place):
        return place.kind
    spelled = spell_out(place)
    return str(spelled.get("kind")) if isinstance(spelled, Mapping) else ""


def spell_out(value: object) -> object:
    """`local` for `{kind: local}`; a mapping without `kind` is local."""
    if isinstance(value, str):
        return {"kind": value}
    return {"kind": "local", **value} if isinstance(value, Mapping) else value
