"""What is read off a service at each scrape: its tiers, their load, and what becomes of models."""

from collections.abc import Iterator
from typing import final, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from limbeck.serving.cascade import Failure
from limbeck.serving.circuit import Position
from limbeck.serving.rollout.follow import Rollout
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.service import ModelRole
from limbeck.serving.tier import Tier


@final
class StateCollector(Collector):
    """The metrics of a service, and of its rollout where it has one."""

    def __init__(self, service: LiveService, *, rollout: Rollout | None) -> None:
        self._service = service
        self._rollout = rollout

    @override
    def collect(self) -> Iterator[Metric]:
        tiers = self._service.tiers
        running = _gauge("limbeck_running", "Answers being written.", "tier")
        waiting = _gauge("limbeck_waiting", "Requests without a row.", "tier")
        rows = _gauge("limbeck_rows", "Answers that may be written at once.", "tier")
        up = _gauge("limbeck_tier_up", "1 where the model is ready.", "tier")
        restarts = _counter(
            "limbeck_worker_restarts",
            "Times that the champion's process died, or its server was lost.",
            "tier",
        )
        circuit = GaugeMetricFamily(
            "limbeck_tier_circuit",
            "1 at how it stands: open, a tier that has failed again and again is left alone.",
            labels=("tier", "state"),
        )
        for name, tier in tiers.items():
            running.add_metric([name], tier.engine.num_running)
            waiting.add_metric([name], tier.engine.num_waiting)
            rows.add_metric([name], tier.config.max_rows)
            up.add_metric([name], tier.engine.state == "ready")
            restarts.add_metric([name], tier.engine.num_restarts)
            for position in get_args(Position):
                circuit.add_metric([name, position], tier.circuit.state.position == position)
        yield from (running, waiting, rows, up, restarts, circuit)
        yield self._describe_failures()
        yield self._describe_models()
        if self._rollout is not None:
            yield from _describe_rollout(self._rollout)

    def _describe_failures(self) -> Metric:
        found = CounterMetricFamily(
            "limbeck_tier_failures",
            "Times that a tier was asked and gave no answer, and why.",
            labels=("tier", "why"),
        )
        for name, meter in self._service.meters.items():
            for why in get_args(Failure):
                found.add_metric([name, why], meter.failures[why])
        return found

    def _describe_models(self) -> Metric:
        models = GaugeMetricFamily(
            "limbeck_model_up",
            "1 where the model is ready; which model has which role.",
            labels=("tier", "role", "model_key"),
        )
        found: list[tuple[ModelRole, Tier]] = [
            *(("champion", tier) for tier in self._service.tiers.values()),
            *(("candidate", tier) for tier in self._service.candidates.values()),
        ]
        for role, tier in found:
            labels = [tier.config.name, role, tier.model_key]
            models.add_metric(labels, tier.engine.state == "ready")
        return models


def _describe_rollout(rollout: Rollout) -> Iterator[Metric]:
    switches = _counter("limbeck_model_switches", "Times that another model took over.", "tier")
    failures = _counter("limbeck_model_switch_failures", "Models that could not take over.", "tier")
    fault = _gauge(
        "limbeck_model_fault", "1 where the tier lacks a model that it should have.", "tier"
    )
    faults = rollout.faults()
    for name, state in rollout.tiers.items():
        switches.add_metric([name], state.num_switches)
        failures.add_metric([name], state.num_failures)
        fault.add_metric([name], name in faults)
    yield from (switches, failures, fault)
    yield GaugeMetricFamily(
        "limbeck_models_beside",
        "Models in memory that get no new request: they are being opened, or finish.",
        value=rollout.num_beside,
    )


def _gauge(name: str, text: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=(label,))


def _counter(name: str, text: str, label: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=(label,))
