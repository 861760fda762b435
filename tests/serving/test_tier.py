"""A tier within its budget and within its time."""

import asyncio

import pytest

from limbeck.contracts.answerer import Message
from limbeck.contracts.errors import BudgetError, EngineDownError, NoTierError, SlowTierError
from limbeck.serving.config import AUTO, BudgetConfig, TierConfig
from limbeck.serving.engine.messages import Finished, Generate
from limbeck.serving.minute import MINUTE_SECONDS, MinuteUses
from limbeck.serving.place import OpenAiHttp
from limbeck.serving.service import Route, Service, ServiceRequest
from limbeck.serving.tier import Meter, ask_tier
from tests.serving.rollout.test_live import CALIBRATED
from tests.support.stepped_engine import Stepped, make_tier

REQUEST = Generate(0, (Message("user", "你好"),), 9)


def read(tier, meter=None):
    async def events():
        return [event async for event in ask_tier(tier, REQUEST, meter=meter or Meter())]

    return asyncio.run(events())


@pytest.mark.parametrize(
    ("settings", "engine", "said"),
    [
        ({"max_first_token_seconds": 0.01}, {"is_silent": True}, "no first token within 0.01 s"),
        ({"max_answer_seconds": 0.01}, {"is_silent": True}, "no first token within 0.01 s"),
        ({"max_answer_seconds": 0.01}, {}, "no end within 0.01 s"),
    ],
)
def test_a_tier_that_takes_too_long_is_given_up(settings, engine, said):
    slow = Stepped("slow", waits=True, **engine)
    with pytest.raises(SlowTierError, match=said):
        read(make_tier(slow, **settings))
    assert slow.num_cancelled == 1


def test_a_tier_that_is_in_time_is_not():
    tier = make_tier(Stepped("quick"), max_first_token_seconds=60.0, max_answer_seconds=60.0)
    assert isinstance(read(tier)[-1], Finished)


def test_a_tier_has_a_budget_of_requests_and_of_tokens():
    by_requests = BudgetConfig(requests_per_minute=2)
    by_tokens = BudgetConfig(tokens_per_minute=15)  # an answer has 10
    for budget in (by_requests, by_tokens):
        engine, meter = Stepped("x"), Meter()
        tier = make_tier(engine, budget=budget)
        for _ in range(2):
            read(tier, meter)
        with pytest.raises(BudgetError) as found:
            read(tier, meter)
        assert 0 < found.value.retry_seconds <= MINUTE_SECONDS
        assert engine.num_asked == 2
    failing = make_tier(
        Stepped("x", error=EngineDownError("gone")), budget=BudgetConfig(requests_per_minute=1)
    )
    for _ in range(3):  # what was not taken costs nothing
        with pytest.raises(EngineDownError):
            read(failing, meter := Meter())
        assert meter.uses.num_requests == 0


def test_a_budget_is_free_again_after_a_minute():
    uses = MinuteUses()
    limits = {"requests_per_minute": 1, "tokens_per_minute": 0}
    assert uses.seconds_to_wait(100.0, **limits) == 0
    uses.add(100.0, num_tokens=0)
    assert uses.seconds_to_wait(110.0, **limits) == MINUTE_SECONDS - 10
    assert uses.seconds_to_wait(100.0 + MINUTE_SECONDS, **limits) == 0


def test_a_new_model_has_no_new_budget():
    """What a tier was asked for outlives the service that one set of models makes."""

    async def ask(service, *, model):
        return [event async for event in service.answer(ServiceRequest(model, REQUEST))]

    meters = {"large": Meter(), "small": Meter()}
    engine = Stepped("small")
    small = make_tier(engine, name="small", policy=CALIBRATED)

    def compose():
        large = make_tier(
            Stepped("large"),
            name="large",
            policy=CALIBRATED,
            budget=BudgetConfig(requests_per_minute=1),
        )
        return Service([large, small], meters=meters)

    assert asyncio.run(ask(compose(), model="large"))
    with pytest.raises(BudgetError):
        asyncio.run(ask(compose(), model="large"))
    assert meters["large"].failures == {"over budget": 1}
    engine.error = EngineDownError("gone")
    with pytest.raises(NoTierError, match="gone; large has had what it may have") as found:
        asyncio.run(ask(compose(), model=AUTO))
    assert not found.value.is_full


@pytest.mark.parametrize(
    ("setting", "is_open"), [("calibration", False), (0.0, True), (0.5, True), (1.0, True)]
)
def test_auto_goes_to_a_model_without_calibration_where_the_recipe_sets_a_bound(setting, is_open):
    tier = make_tier(Stepped("x"), min_confidence_ratio=setting)
    assert tier.is_open_to_auto == is_open
    assert tier.can_be_unsure == (setting in (0.5, 1.0))


def test_settings_that_would_be_ignored_are_refused():
    place = {"kind": "openai_http", "url": "http://127.0.0.1:1/v1"}
    for wrong, said in (
        ({"canary": {"share": 0.1}}, "canary"),
        ({"num_threads": 2}, "num_threads"),
        ({"min_confidence_ratio": 0.5, "place": place | {"logprobs": False}}, "logprobs: true"),
        ({"place": {"url": "http://x"}}, "unknown key 'url'"),
        ({"place": place | {"url": "http://me:secret@x/v1"}}, "key_variable"),
        ({"place": place | {"url": "ftp://x"}}, "expected an address"),
        ({"place": "openai_http"}, "url"),
    ):
        with pytest.raises(ValueError, match=said):
            TierConfig.model_validate({"name": "a", "model": "b", "place": place} | wrong)
    local = TierConfig.model_validate({"name": "a", "model": "b", "place": "local"})
    assert local.remote is None


def test_only_what_leaves_this_machine_is_redacted_by_default():
    def redacts(url, **settings):
        return OpenAiHttp(kind="openai_http", url=url, **settings).redacts

    assert not redacts("http://127.0.0.1:1/v1") and not redacts("http://localhost:1/v1")
    assert not redacts("http://[::1]:1/v1")
    assert redacts("https://api.example.com/v1") and redacts("http://10.0.0.7:8000/v1")
    assert redacts("http://127.0.0.1:1/v1", redact="always")
    assert not redacts("https://api.example.com/v1", redact="never")


def test_the_route_of_a_named_tier_is_named():
    async def first():
        service = Service([make_tier(Stepped("x"))])
        return await anext(service.answer(ServiceRequest("only", REQUEST)))

    assert asyncio.run(first()) == Route("only", "named", "key of x")
