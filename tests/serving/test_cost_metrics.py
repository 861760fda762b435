"""What tiers cost: drafts that nobody was shown included, and no money where no price is known."""

import asyncio

import pytest

from limbeck.contracts.answerer import Message
from limbeck.serving.config import AUTO
from limbeck.serving.cost_metrics import CostCollector
from limbeck.serving.engine.messages import Generate
from limbeck.serving.metrics import Metrics
from limbeck.serving.price import PriceConfig
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.service import End, Route, Service, ServiceRequest
from limbeck.serving.tier import Meter
from tests.support.stepped_engine import Stepped, make_tier

CLOUD = PriceConfig(
    currency="CNY", per_million_input_tokens=1e6, per_million_output_tokens=2e6, per_hour=1e-9
)
EDGE = PriceConfig(currency="CNY", per_million_input_tokens=1e5, per_million_output_tokens=1e5)


class Bench:
    """Two tiers, the smaller of which is never sure; each answer reads 7 tokens and writes 3."""

    def __init__(self, *, cloud=CLOUD, edge=EDGE):
        tiers = [
            make_tier(Stepped("cloud"), name="cloud", min_confidence_ratio=0.0, price=cloud),
            make_tier(Stepped("edge"), name="edge", min_confidence_ratio=1.0, price=edge),
        ]
        meters = {"cloud": Meter(), "edge": Meter()}
        self.live = LiveService(
            tiers, compose=lambda found: Service(found, meters=meters), meters=meters
        )
        self.metrics = Metrics()
        self.metrics.registry.register(CostCollector(self.live, shown_tokens=self.metrics.tokens))

    def ask(self, model):
        async def answer():
            asked = ServiceRequest(model, Generate(0, (Message("user", "你好"),), 9))
            route = None
            async for event in self.live.answer(asked):
                route = event if isinstance(event, Route) else route
                if isinstance(event, End):
                    self.metrics.observe_end(route, event)

        asyncio.run(answer())

    def read(self, name):
        found = {}
        for family in self.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == name:
                    found["/".join(sample.labels.values())] = sample.value
        return found


def test_a_draft_costs_and_the_comparison_has_none():
    bench = Bench()
    bench.ask(AUTO)  # a draft of the edge, an answer of the cloud
    bench.ask("edge")
    assert bench.read("limbeck_tier_requests_total") == {"cloud": 1, "edge": 2}
    assert bench.read("limbeck_tier_tokens_total") == {
        "cloud/input": 7,
        "cloud/output": 3,
        "edge/input": 14,
        "edge/output": 6,
    }
    cost = bench.read("limbeck_cost_total")
    assert cost.pop("cloud/CNY/hours") > 0
    assert cost == {
        "cloud/CNY/input": pytest.approx(7),
        "cloud/CNY/output": pytest.approx(6),
        "edge/CNY/input": pytest.approx(1.4),
        "edge/CNY/output": pytest.approx(0.6),
        "edge/CNY/hours": 0,
    }
    assert bench.read("limbeck_cost_if_largest_total") == {"CNY": pytest.approx(2 * (7 + 6))}


def test_without_a_price_there_are_tokens_and_no_money():
    bench = Bench(edge=PriceConfig())
    bench.ask(AUTO)
    assert bench.read("limbeck_tier_tokens_total")["edge/input"] == 7
    assert {name.partition("/")[0] for name in bench.read("limbeck_cost_total")} == {"cloud"}
    assert not bench.read("limbeck_cost_if_largest_total")


def test_several_answers_to_one_prompt_read_it_once():
    metrics, route = Metrics(), Route("small", "named", "key")
    for choice in range(3):
        metrics.observe_end(route, End(choice, "stop", "answered", 7, 5, None))
    found = {
        sample.labels["type"]: sample.value
        for sample in next(iter(metrics.tokens.collect())).samples
        if sample.name.endswith("_total")
    }
    assert found == {"input": 7, "output": 15}
