"""From settings and folders to a service that can be started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.answer_policy import read_policy
from limbeck.contracts.safety_rules import SafetyRules
from limbeck.serving.config import ServeConfig
from limbeck.serving.engine.engine import ProcessEngine
from limbeck.serving.engine.worker import WorkerSettings
from limbeck.serving.safety import CompiledRules, compile_rules
from limbeck.serving.service import Service, Tier


@dataclass(frozen=True)
class ServedModel:
    """Where a tier's model lies, and which one it is."""

    folder: Path
    key: str


def open_service(config: ServeConfig, *, models: Mapping[str, ServedModel]) -> Service:
    """The service; its models are opened when it starts.

    Raises:
        CheckpointError: a policy beside a model is damaged.
        UnknownNameError: the safety rules have no numbers of the country.
    """
    tiers: list[Tier] = []
    for tier in config.tiers:
        model = models[tier.name]
        settings = WorkerSettings(model.folder, tier.max_rows, tier.num_threads)
        engine = ProcessEngine(settings, name=tier.name, max_waiting=tier.max_waiting)
        tiers.append(Tier(tier, engine, read_policy(model.folder), model.key))
    return Service(tiers, rules=_compile(tiers, country=config.country))


def _compile(tiers: Sequence[Tier], *, country: str) -> list[CompiledRules]:
    """The safety rules of all tiers; those that several share, once, as they take a while."""
    found: list[SafetyRules] = []
    for tier in tiers:
        if tier.policy.file.safety not in found:
            found.append(tier.policy.file.safety)
    # A model without rules of its own has no numbers that could be chosen.
    return [compile_rules(item, country=country if item.countries else "") for item in found]
