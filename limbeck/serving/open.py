"""From settings and folders to a service that can be started."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.answer_policy import read_policy
from limbeck.serving.config import ServeConfig
from limbeck.serving.engine.engine import Engine
from limbeck.serving.engine.worker import WorkerSettings
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
    """
    tiers = []
    for tier in config.tiers:
        model = models[tier.name]
        settings = WorkerSettings(model.folder, tier.max_rows, tier.num_threads)
        engine = Engine(settings, name=tier.name, max_waiting=tier.max_waiting)
        tiers.append(Tier(tier, engine, read_policy(model.folder), model.key))
    return Service(tiers)
