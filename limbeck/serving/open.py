"""From settings and folders to a service that can be started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from limbeck.contracts.answer_policy import read_policy
from limbeck.contracts.safety_rules import SafetyRules
from limbeck.serving.config import ServeConfig, TierConfig
from limbeck.serving.engine.engine import ProcessEngine
from limbeck.serving.engine.worker import WorkerSettings
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.safety import CompiledRules, compile_rules
from limbeck.serving.service import Service, Tier


@dataclass(frozen=True)
class ServedModel:
    """Where a tier's model lies, and which one it is."""

    folder: Path
    key: str


def open_service(config: ServeConfig, *, models: Mapping[str, ServedModel]) -> LiveService:
    """The service; its models are opened when it starts.

    Raises:
        CheckpointError: a policy beside a model is damaged.
        UnknownNameError: the safety rules have no numbers of the country.
    """
    rules = RulesOfTiers(country=config.country)

    def compose(tiers: Sequence[Tier]) -> Service:
        return Service(tiers, rules=rules.compile(tiers))

    tiers = [open_tier(tier, model=models[tier.name]) for tier in config.tiers]
    return LiveService(tiers, compose=compose)


def open_tier(config: TierConfig, *, model: ServedModel, niceness: int = 0) -> Tier:
    """A tier whose model is still to be started; the nicer, the less processor time it takes.

    Raises:
        CheckpointError: a policy beside the model is damaged.
    """
    settings = WorkerSettings(model.folder, config.max_rows, config.num_threads, niceness)
    engine = ProcessEngine(
        settings,
        name=config.name,
        max_waiting=config.max_waiting,
        max_wait_seconds=config.max_wait_seconds,
    )
    return Tier(config, engine, read_policy(model.folder), model.key)


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
