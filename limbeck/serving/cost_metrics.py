"""What tiers cost, read off at each scrape: tokens, processor time, and money where it is known.

Not counted are answers that broke off before their end: nobody says how many tokens they had.
"""

import time
from collections.abc import Iterator, Sequence
from typing import final, get_args

import psutil
from prometheus_client import Counter
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from limbeck.serving.config import TierConfig
from limbeck.serving.engine.engine import ProcessEngine
from limbeck.serving.price import CostType, TierUse, compute_cost
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.tier import Tier

SECONDS_PER_HOUR = 3600.0


@final
class CostCollector(Collector):
    """The metrics of what each tier was used for and costs."""

    def __init__(self, service: LiveService, *, shown_tokens: Counter) -> None:
        """`shown_tokens` counts those of answers, by tier, type and role."""
        self._service = service
        self._shown_tokens = shown_tokens
        self._started = time.monotonic()
        self._processes: dict[tuple[str, int, float], float] = {}

    @override
    def collect(self) -> Iterator[Metric]:
        hours = (time.monotonic() - self._started) / SECONDS_PER_HOUR
        tiers = self._service.tiers
        configs = [tier.config for name, tier in tiers.items() if name in self._service.meters]
        requests = CounterMetricFamily(
            "limbeck_tier_requests",
            "Requests that a tier was given, drafts and copies that nobody was shown included.",
            labels=("tier",),
        )
        tokens = CounterMetricFamily(
            "limbeck_tier_tokens",
            "Tokens that a tier read and wrote, drafts and copies included.",
            labels=("tier", "type"),
        )
        cost = CounterMetricFamily(
            "limbeck_cost",
            "What a tier costs, by the prices of the recipe.",
            labels=("tier", "currency", "type"),
        )
        for config in configs:
            name, use = config.name, self._use(config.name, hours)
            requests.add_metric([name], self._service.meters[name].num_requests)
            tokens.add_metric([name, "input"], use.num_input_tokens)
            tokens.add_metric([name, "output"], use.num_output_tokens)
            found = compute_cost(config.price, use)
            for what in get_args(CostType) if config.price.is_known else ():
                cost.add_metric([name, config.price.currency, what], found[what])
        yield from (requests, tokens, cost)
        yield self._compare(configs, hours)
        yield self._measure()

    def _use(self, name: str, hours: float) -> TierUse:
        meter = self._service.meters[name]
        return TierUse(meter.num_input_tokens, meter.num_output_tokens, hours)

    def _compare(self, configs: Sequence[TierConfig], hours: float) -> Metric:
        """All that was shown, by the largest tier on one machine; where all prices are known."""
        found = CounterMetricFamily(
            "limbeck_cost_if_largest",
            "What the answers would have cost if the largest tier had given all of them.",
            labels=("currency",),
        )
        if not configs or not all(config.price.is_known for config in configs):
            return found
        count = {"input": 0, "output": 0}
        for sample in next(iter(self._shown_tokens.collect())).samples:
            if sample.name.endswith("_total"):
                count[sample.labels["type"]] += int(sample.value)
        price = configs[0].price
        total = compute_cost(price, TierUse(count["input"], count["output"], hours))
        found.add_metric([price.currency], sum(total.values()))
        return found

    def _measure(self) -> Metric:
        """Processor time of all processes that a tier has had on this machine."""
        tiers: list[Tier] = [*self._service.tiers.values(), *self._service.candidates.values()]
        for tier in tiers:
            if isinstance(tier.engine, ProcessEngine) and tier.engine.pid:
                self._observe_process(tier.config.name, tier.engine.pid)
        found = CounterMetricFamily(
            "limbeck_tier_processor_seconds",
            "Processor time of a tier's processes, as last seen; of models on this machine.",
            labels=("tier",),
        )
        for name in self._service.tiers:
            times = [value for key, value in self._processes.items() if key[0] == name]
            if times:
                found.add_metric([name], sum(times))
        return found

    def _observe_process(self, tier: str, pid: int) -> None:
        try:
            process = psutil.Process(pid)
            used = process.cpu_times()
            self._processes[tier, pid, process.create_time()] = used.user + used.system
        except psutil.Error:
            return  # it has just ended
