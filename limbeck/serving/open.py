"""From settings and folders to a service that can be started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from limbeck.contracts.safety_rules import SafetyRules
from limbeck.contracts.tier_router import TierRouter
from limbeck.serving.config import ServeConfig, TierConfig
from limbeck.serving.facts import NO_FACTS, FactStore
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.safety import CompiledRules, compile_rules
from limbeck.serving.service import Service
from limbeck.serving.tier import Meter, Tier


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
        tier.place.open_tier(tier, model=models.get(tier.name), niceness=0) for tier in config.tiers
    ]
    return LiveService(tiers, compose=compose, meters=meters)


def open_tier(config: TierConfig, *, model: ServedModel, niceness: int = 0) -> Tier:
    """A tier whose model is still to be started; the nicer, the less processor time it takes.

    Raises:
        CheckpointError: a policy beside the model is damaged.
    """
    return config.place.open_tier(config, model=model, niceness=niceness)


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
