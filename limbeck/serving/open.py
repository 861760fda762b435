"""From settings and folders to a service that can be started."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.answer_policy import AnswerPolicy, read_policy
from limbeck.serving.config import ServeConfig
from limbeck.serving.engine.engine import ProcessEngine
from limbeck.serving.engine.worker import WorkerSettings
from limbeck.serving.safety import compile_rules
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
    tiers, rules = [], []
    for tier in config.tiers:
        model = models[tier.name]
        settings = WorkerSettings(model.folder, tier.max_rows, tier.num_threads)
        engine = ProcessEngine(settings, name=tier.name, max_waiting=tier.max_waiting)
        policy = read_policy(model.folder)
        tiers.append(Tier(tier, engine, policy, model.key))
        rules.append(compile_rules(policy.file.safety, country=_country(policy, config.country)))
    return Service(tiers, rules=rules)


def _country(policy: AnswerPolicy, wanted: str) -> str:
    """The country; a model without rules of its own has no numbers that could be chosen."""
    return wanted if policy.file.safety.countries else ""
