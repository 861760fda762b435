"""Shadows: copies are answered off the path, marked, and given up before anybody waits for them."""

import asyncio
import gc

import pytest

from limbeck.contracts.answerer import Message
from limbeck.contracts.errors import EngineDownError
from limbeck.serving.config import ShadowConfig
from limbeck.serving.engine.messages import Generate
from limbeck.serving.log import describe_record
from limbeck.serving.metrics import Metrics
from limbeck.serving.recorder import Recording
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.rollout.shadow import Shadows
from limbeck.serving.service import Service, ServiceRequest
from tests.support.stepped_engine import Stepped, make_tier


class Bench:
    """A champion, a candidate that answers copies, and what was kept and counted."""

    def __init__(self, candidate, *, share=1.0, max_running=1):
        self.champion, self.candidate, self.kept = Stepped("old", text="甲"), candidate, []
        self.metrics = Metrics()
        self.live = LiveService([make_tier(self.champion)], compose=Service)
        shadow = ShadowConfig(share=share, max_running=max_running)
        self.live.set_candidate(make_tier(candidate, shadow=shadow))
        self.shadows = Shadows(self.live, metrics=self.metrics, keep=self.kept.append, seconds=60.0)

    async def ask(self, number=0, **settings):
        """Answers a request, as the door does, and offers it."""
        messages = (Message("user", f"问题{number}"),)
        asked = ServiceRequest(
            "only", Generate(0, messages, 0, **settings), sticky=messages[0].content
        )
        with Recording(None, f"chatcmpl-{number}", "auto", messages) as recording:
            async for event in self.live.answer(asked):
                recording.observe(event)
        self.shadows.offer(asked, recording)
        return recording

    async def settle(self):
        async with asyncio.timeout(60):
            while self.shadows.num_running:
                await asyncio.sleep(0.01)

    def counts(self):
        (family,) = [
            item
            for item in self.metrics.registry.collect()
            if item.name == "limbeck_shadow_answers"
        ]
        return {
            item.labels["outcome"]: int(item.value)
            for item in family.samples
            if item.name.endswith("_total")
        }


@pytest.mark.parametrize(("text", "outcome"), [("甲", "same"), ("乙", "different")])
def test_a_copy_is_answered_kept_and_compared(text, outcome):
    async def live():
        bench = Bench(Stepped("new", text=text))
        recording = await bench.ask()
        assert recording.whole_text() == "甲" and recording.route.role == "champion"
        await bench.settle()
        (row,) = bench.kept
        assert (row.id, row.route_reason, row.tier) == ("shadow-0", "shadow", "only")
        assert (row.answer, row.model_key, row.question) == (text, "key of new", "问题0")
        assert bench.counts() == {outcome: 1}

    asyncio.run(live())


def test_an_answer_never_waits_for_its_copy():
    async def live():
        bench = Bench(Stepped("new", waits=True))
        await asyncio.wait_for(bench.ask(0), 10)  # the copy is still being answered
        await asyncio.wait_for(bench.ask(1), 10)
        assert bench.counts() == {"left out": 1}  # one copy at once
        bench.candidate.go.set()
        await bench.settle()
        assert bench.counts() == {"left out": 1, "different": 1}

    asyncio.run(live())


def test_copies_are_given_up_when_a_request_waits():
    async def live():
        bench = Bench(Stepped("new", waits=True))
        await bench.ask(0)
        bench.champion.waiting = 1
        await bench.settle()
        await bench.ask(1)
        assert bench.counts() == {"left out": 2}
        assert bench.candidate.num_cancelled == bench.candidate.num_asked == 1
        assert bench.kept == []

    asyncio.run(live())


@pytest.mark.parametrize("broken", [{"dies": True}, {"error": EngineDownError("gone")}])
def test_a_candidate_that_fails_is_counted_and_nobody_notices(broken):
    async def live():
        bench = Bench(Stepped("new", **broken))
        assert (await bench.ask()).whole_text() == "甲"
        await bench.settle()
        assert bench.counts() == {"failed": 1} and bench.kept == []

    asyncio.run(live())


def test_a_fault_while_a_copy_is_answered_is_counted_and_quotes_nobody(caplog):
    async def live():
        bench = Bench(Stepped("new", error=ValueError("问题0")))
        await bench.ask()
        await bench.settle()
        assert bench.counts() == {"failed": 1} and bench.kept == []

    asyncio.run(live())
    gc.collect()  # asyncio reports a fault of a task that nobody awaited when the task goes
    (record,) = caplog.records
    assert "ValueError" in str(describe_record(record))
    assert "问题0" not in str(describe_record(record))


def test_only_a_share_is_copied_and_nothing_after_the_end():
    async def live():
        bench = Bench(Stepped("new"), share=0.25, max_running=400)
        for number in range(400):
            await bench.ask(number)
        await bench.settle()
        assert len(bench.kept) == pytest.approx(100, abs=35)
        bench.candidate.go.clear()
        num_asked = bench.candidate.num_asked
        while bench.candidate.num_asked == num_asked:
            await bench.ask(number := number + 1)
            await asyncio.sleep(0)
        await bench.shadows.stop()
        assert not bench.shadows.num_running

    asyncio.run(live())
