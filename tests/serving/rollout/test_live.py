"""Which model answers: a switch between two requests, shares of candidates, candidates that die."""

import asyncio
from contextlib import aclosing

import pytest

from limbeck.contracts.answer_policy import AnswerPolicy
from limbeck.contracts.answerer import Message
from limbeck.contracts.errors import EngineDownError, NoTierError, QueueFullError
from limbeck.contracts.familiarity import Familiarity
from limbeck.env.seeds import draw_share
from limbeck.serving.config import AUTO, CanaryConfig
from limbeck.serving.engine.messages import Generate
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.service import AnswerText, End, Route, Service, ServiceRequest
from tests.support.stepped_engine import Stepped, make_tier

CALIBRATED = AnswerPolicy(familiarity=Familiarity.of(["高血压"]))


def canary(engine, *, share, **settings):
    return make_tier(engine, canary=CanaryConfig(share=share), **settings)


def ask(text="你好", *, model="only"):
    return ServiceRequest(model, Generate(0, (Message("user", text),), 0), sticky=text)


async def read(live, asked):
    route, *events = [event async for event in live.answer(asked)]
    assert isinstance(route, Route)
    return route, "".join(event.text for event in events if isinstance(event, AnswerText))


def test_requests_under_way_stay_and_new_ones_go_to_the_new_model():
    async def live_through():
        old, new = Stepped("old", waits=True), Stepped("new")
        live = LiveService([make_tier(old)], compose=Service)
        async with aclosing(live.answer(ask())) as stream:
            first = await anext(stream)
            assert isinstance(first, Route) and first.model_key == "key of old"
            assert live.switch(make_tier(new)).engine is old
            unused = asyncio.ensure_future(live.wait_unused(old))
            route, text = await read(live, ask())
            assert (text, route.model_key, route.role) == ("new", "key of new", "champion")
            assert not unused.done()  # a request is still being answered
            old.go.set()
            last = [event async for event in stream][-1]
            assert isinstance(last, End) and last.reason == "stop"
        await asyncio.wait_for(unused, 10)
        assert old.num_asked == 1

    asyncio.run(live_through())


def test_a_stream_that_is_closed_frees_its_model():
    async def live_through():
        old = Stepped("old", waits=True)
        live = LiveService([make_tier(old)], compose=Service)
        async with aclosing(live.answer(ask())) as stream:
            await anext(stream)
        await asyncio.wait_for(live.wait_unused(old), 10)

    asyncio.run(live_through())


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_a_share_of_conversations_meets_the_candidate_and_always_the_same_ones(share):
    async def live_through():
        live = LiveService([make_tier(Stepped("old"))], compose=Service)
        live.set_candidate(canary(Stepped("new"), share=share))
        texts = [f"问题{number}" for number in range(400)]
        first = [await read(live, ask(text)) for text in texts]
        assert [await read(live, ask(text)) for text in texts] == first
        for route, text in first:
            assert route.role == ("candidate" if text == "new" else "champion")
            assert route.model_key == f"key of {text}"
        found = sum(text == "new" for _, text in first) / len(texts)
        assert found == pytest.approx(share, abs=4 * (share * (1 - share) / 400) ** 0.5)

    asyncio.run(live_through())


def test_shares_of_two_tiers_are_drawn_apart():
    both = [
        (draw_share(str(item), name="canary a"), draw_share(str(item), name="canary b"))
        for item in range(1000)
    ]
    assert sum(a < 0.5 and b < 0.5 for a, b in both) == pytest.approx(250, abs=60)


@pytest.mark.parametrize(
    "broken", [{"dies": True}, {"error": EngineDownError("gone")}, {"error": QueueFullError("x")}]
)
def test_where_the_candidate_dies_the_champion_answers(broken):
    async def live_through():
        candidate = Stepped("new", **broken)
        live = LiveService([make_tier(Stepped("old"))], compose=Service)
        live.set_candidate(canary(candidate, share=1.0))
        route, text = await read(live, ask())
        assert (text, route.role, route.reason) == ("old", "champion", "named")
        candidate.state = "broken"
        assert (await read(live, ask()))[1] == "old"
        assert candidate.num_asked == 1  # of a model that is known to be down nobody is asked

    asyncio.run(live_through())


def test_another_tier_does_not_stand_in_for_a_candidate():
    async def live_through():
        tiers = [
            make_tier(Stepped(name), name=name, policy=CALIBRATED) for name in ("large", "small")
        ]
        live = LiveService(tiers, compose=Service)
        dying = Stepped("new", dies=True)
        live.set_candidate(canary(dying, name="small", share=1.0, policy=CALIBRATED))
        route, text = await read(live, ask(model=AUTO))
        assert (text, route.tier, route.reason) == ("small", "small", "smallest tier")
        assert dying.num_asked == 1

    asyncio.run(live_through())


def test_another_tier_does_not_stand_in_for_a_candidate_that_is_full():
    async def live_through():
        tiers = [
            make_tier(Stepped(name), name=name, policy=CALIBRATED) for name in ("large", "small")
        ]
        live = LiveService(tiers, compose=Service)
        full = Stepped("new", error=QueueFullError("full"))
        live.set_candidate(canary(full, name="small", share=1.0, policy=CALIBRATED))
        route, text = await read(live, ask(model=AUTO))
        assert (text, route.tier, route.reason) == ("small", "small", "smallest tier")

        # A champion that fails is no candidate's matter: the other tier stands in.
        down = make_tier(Stepped("small", dies=True), name="small", policy=CALIBRATED)
        route, text = await read(LiveService([tiers[0], down], compose=Service), ask(model=AUTO))
        assert (text, route.reason, route.failures) == ("large", "degraded", {"small": "down"})

    asyncio.run(live_through())


def test_policy_and_rules_change_with_the_model():
    async def live_through():
        composed = []

        def compose(tiers):
            composed.append([tier.model_key for tier in tiers])
            return Service(tiers)

        live = LiveService([make_tier(Stepped("old"))], compose=compose)
        live.set_candidate(canary(Stepped("new"), share=1.0))
        await read(live, ask())
        adopted = live.candidates["only"]
        live.switch(adopted)
        assert composed == [["key of old"], ["key of new"], ["key of new"]]
        assert not live.candidates
        route, _ = await read(live, ask())
        assert route.role == "champion"

    asyncio.run(live_through())


def test_where_the_candidate_was_dropped_meanwhile_the_champion_answers():
    async def live_through():
        live = LiveService([make_tier(Stepped("old"))], compose=Service)
        live.set_candidate(canary(Stepped("new"), share=1.0))
        stream = live.answer(ask())
        live.drop_candidate("only")
        route, *_ = [event async for event in stream]
        assert isinstance(route, Route) and route.model_key == "key of old"
        with pytest.raises(NoTierError):
            await anext(live.answer_by(ask(), names=frozenset({"only"})))

    asyncio.run(live_through())
