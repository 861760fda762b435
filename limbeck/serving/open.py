"""From settings and folders to a service that can be started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final
from urllib.parse import quote

from limbeck.contracts.answer_policy import AnswerPolicy, read_policy
from limbeck.contracts.config import Table, resolve
from limbeck.contracts.safety_rules import SafetyRules
from limbeck.contracts.tier_router import TierRouter
from limbeck.serving.config import ServeConfig, TierConfig
from limbeck.serving.engine.base import Engine
from limbeck.serving.engine.engine import ProcessEngine
from limbeck.serving.engine.worker import WorkerSettings
from limbeck.serving.facts import NO_FACTS, FactStore
from limbeck.serving.place import LlamaCpp, OpenAiHttp
from limbeck.serving.remote_tiers import read_key
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.safety import CompiledRules, compile_rules
from limbeck.serving.service import Service
from limbeck.serving.tier import Meter, Tier

ENGINES: Table = {
    "openai_http": "limbeck.serving.engine.remote:RemoteEngine",
    "llama_cpp": "limbeck.serving.engine.llama_cpp:LlamaCppEngine",
}
"""By the kind of a tier's place; imported when a tier is there, for the library that they need."""


@dataclass(frozen=True)
class ServedModel:
    """Where a tier's model lies, and which one it is."""

    folder: Path
    """Of a GGUF file, the file."""
    key: str


def open_service(
    config: ServeConfig,
    *,
    models: Mapping[str, ServedModel],
    router: TierRouter | None = None,
    facts: FactStore = NO_FACTS,
) -> LiveService:
    """The service; its models are opened when it starts. Those at other servers need no model here.

    Raises:
        CheckpointError: a policy beside a model is damaged.
        EndpointError: the key of another server is not set.
        UnknownNameError: the safety rules have no numbers of the country.
    """
    rules = RulesOfTiers(country=config.country)
    meters = {tier.name: Meter() for tier in config.tiers}

    def compose(tiers: Sequence[Tier]) -> Service:
        compiled = rules.compile(tiers)
        return Service(tiers, rules=compiled, meters=meters, router=router, facts=facts)

    tiers = [
        open_remote_tier(tier, tier.remote)
        if tier.remote is not None
        else open_tier(tier, model=models[tier.name])
        for tier in config.tiers
    ]
    return LiveService(tiers, compose=compose, meters=meters)


def open_tier(config: TierConfig, *, model: ServedModel, niceness: int = 0) -> Tier:
    """A tier whose model is still to be started; the nicer, the less processor time it takes.

    Raises:
        CheckpointError: a policy beside the model is damaged.
    """
    if isinstance(config.place, LlamaCpp):
        kind = resolve(ENGINES, config.place.kind, what="place")
        return Tier(
            config, kind(config, config.place, path=model.folder), AnswerPolicy(), model.key
        )
    settings = WorkerSettings(
        model.folder, config.max_rows, config.num_threads, niceness, config.max_prefix_bytes
    )
    engine = ProcessEngine(
        settings,
        name=config.name,
        max_waiting=config.max_waiting,
        max_wait_seconds=config.max_wait_seconds,
    )
    return Tier(config, engine, read_policy(model.folder), model.key)


def open_remote_tier(config: TierConfig, place: OpenAiHttp) -> Tier:
    """A tier whose model is at another server; its rules are those of the other tiers.

    Raises:
        EndpointError: the server's key is not set.
    """
    key = read_key(config, place)
    engine: Engine = resolve(ENGINES, place.kind, what="place")(config, place, key=key)
    return Tier(config, engine, AnswerPolicy(), name_remote_model(config, place))


def name_remote_model(config: TierConfig, place: OpenAiHttp) -> str:
    """What stands for a content hash, which another server does not tell: the model and where."""
    return f"{quote(config.model, safe='/:._+-')}@{place.host}:{place.port}"


@final
class RulesOfTiers:
    """Compiles safety rules, which takes a while: those that were met before, only once."""

    def __init__(self, *, country: str) -> None:
        self._country = country
        self._compiled: list[tuple[SafetyRules, CompiledRules]] = []

    def compile(self, tiers: Sequence[Tier]) -> list[CompiledRules]:
        """The safety rules of all tiers; those that several share, once.

        Raises:
            UnknownNameError: they have no numbers of the country.
        """
        found: list[CompiledRules] = []
        for tier in tiers:
            rules = self._find(tier.policy.file.safety)
            if all(item is not rules for item in found):
                found.append(rules)
        return found

    def _find(self, rules: SafetyRules) -> CompiledRules:
        for known, compiled in self._compiled:
            if known == rules:
                return compiled
        # A model without rules of its own has no numbers that could be chosen.
        compiled = compile_rules(rules, country=self._country if rules.countries else "")
        self._compiled.append((rules, compiled))
        return compiled
