"""Models that a source names come into service: opened first, switched, retired, or left out."""

import asyncio
from pathlib import Path

import pytest

from limbeck.contracts.answer_policy import AnswerPolicy
from limbeck.contracts.errors import ArtifactError
from limbeck.serving.config import CanaryConfig, ShadowConfig, TierConfig
from limbeck.serving.engine.base import Engine
from limbeck.serving.open import ServedModel
from limbeck.serving.rollout.follow import SHADOW_NICENESS, Rollout
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.rollout.source import Assignment, ModelSource
from limbeck.serving.service import Service, Tier


class Named(ModelSource):
    """Names what the test names."""

    def __init__(self, champion, candidate=None):
        self.damaged = set()
        self.num_changes = 0
        self.name(champion, candidate)

    def name(self, champion, candidate=None):
        self.num_changes += 1
        keys = [key and ServedModel(Path(key), key) for key in (champion, candidate)]
        self.assignment = Assignment(*keys, str(self.num_changes))

    def find(self, tier):
        if self.assignment.champion.key == "gone":
            raise ArtifactError("the champion is gone")
        return self.assignment

    def verify(self, model):
        if model.key in self.damaged:
            raise ArtifactError(f"{model.key}: damaged (weights)")


class Idle(Engine):
    """An engine that is ready, or broken, once it is started."""

    num_waiting = num_running = 0

    def __init__(self, key, niceness, *, is_broken):
        self.key, self.niceness, self.is_broken = key, niceness, is_broken
        self.is_stopped = False

    def start(self):
        self.state = "broken" if self.is_broken else "ready"
        self.broken_because = "cannot be opened" if self.is_broken else ""

    async def stop(self):
        self.is_stopped = True

    def submit(self, request):
        raise NotImplementedError


class Bench:
    """A service of one tier, and every engine that was ever made for it."""

    def __init__(self, source, **settings):
        self.config = TierConfig(name="only", model="triage", **settings)
        self.source = source
        self.engines: list[Idle] = []
        self.broken: set[str] = set()
        first = self.open(self.config, model=source.find(self.config).champion, niceness=0)
        first.engine.start()
        self.live = LiveService([first], compose=Service)
        self.rollout = Rollout(self.live, source=source, opens=self.open)

    def open(self, config, *, model, niceness):
        engine = Idle(model.key, niceness, is_broken=model.key in self.broken)
        self.engines.append(engine)
        return Tier(config, engine, AnswerPolicy(), model.key)

    async def follow(self):
        await self.rollout.follow_once(self.config)
        for _ in range(5):
            await asyncio.sleep(0)  # what retires, retires

    @property
    def champion(self):
        return self.live.tiers["only"].model_key

    @property
    def candidate(self):
        found = self.live.candidates.get("only")
        return found and found.model_key

    def running(self):
        return sorted(engine.key for engine in self.engines if not engine.is_stopped)


def test_a_promotion_and_a_rollback_are_followed_and_the_old_model_ends():
    async def live():
        bench = Bench(Named("a"))
        for key in ("b", "a"):
            bench.source.name(key)
            await bench.follow()
            assert (bench.champion, bench.running()) == (key, [key])
        assert bench.rollout.tiers["only"].num_switches == 2
        assert bench.rollout.num_beside == 0 and not bench.rollout.faults()

    asyncio.run(live())


@pytest.mark.parametrize("how", ["damaged", "broken", "gone"])
def test_what_cannot_be_opened_changes_nothing_and_is_reported_once(how, caplog):
    async def live():
        bench = Bench(Named("a"))
        bench.source.damaged |= {"b"} if how == "damaged" else set()
        bench.broken |= {"b"} if how == "broken" else set()
        bench.source.name("gone" if how == "gone" else "b")
        num_made = len(bench.engines)
        for _ in range(3):
            await bench.follow()
        assert (bench.champion, bench.running()) == ("a", ["a"])
        fault = bench.rollout.faults()["only"]
        assert {"damaged": "damaged", "broken": "opened", "gone": "gone"}[how] in fault
        assert len(caplog.records) == 1 and fault in caplog.text
        assert len(bench.engines) - num_made <= 1  # no second attempt
        bench.source.damaged.clear()
        bench.broken.clear()
        bench.source.name("b")  # promoted again: a new attempt
        await bench.follow()
        assert (bench.champion, bench.rollout.faults()) == ("b", {})

    asyncio.run(live())


def test_a_model_that_was_taken_back_while_it_opened_never_answers():
    async def live():
        bench = Bench(Named("a"))
        bench.source.name("b")
        bench.source.verify = lambda model: bench.source.name("a")
        await bench.follow()
        assert (bench.champion, bench.running()) == ("a", ["a"])
        await bench.follow()
        assert not bench.rollout.faults()

    asyncio.run(live())


def test_a_model_whose_source_fails_while_it_opens_ends_and_is_opened_again():
    async def live():
        bench = Bench(Named("a"))
        bench.source.name("b")
        find = bench.source.find
        bench.source.verify = lambda model: setattr(bench.source, "find", fail)

        def fail(tier):
            raise OSError("the registry cannot be read")

        await bench.follow()
        assert (bench.champion, bench.running()) == ("a", ["a"])
        assert bench.rollout.num_beside == 0
        assert "cannot be read" in bench.rollout.faults()["only"]
        bench.source.find, bench.source.verify = find, lambda model: None
        await bench.follow()
        assert (bench.champion, bench.running()) == ("b", ["b"])
        assert not bench.rollout.faults()

    asyncio.run(live())


def test_a_candidate_is_opened_where_a_share_is_wanted_and_adopted_when_promoted():
    async def live():
        bench = Bench(Named("a", "b"), canary=CanaryConfig(share=0.1))
        await bench.follow()
        assert (bench.champion, bench.candidate, bench.running()) == ("a", "b", ["a", "b"])
        bench.source.name("a", "c")  # another candidate
        await bench.follow()
        assert (bench.candidate, bench.running()) == ("c", ["a", "c"])
        opened = bench.live.candidates["only"].engine
        bench.source.name("c")
        await bench.follow()
        assert (bench.champion, bench.candidate, bench.running()) == ("c", None, ["c"])
        assert bench.live.tiers["only"].engine is opened  # it was open already

    asyncio.run(live())


def test_a_candidate_that_cannot_be_opened_is_no_matter_of_the_champion():
    async def live():
        bench = Bench(Named("a", "b"), canary=CanaryConfig(share=0.1))
        bench.source.damaged.add("b")
        await bench.follow()
        assert (bench.champion, bench.candidate) == ("a", None)
        assert "damaged" in bench.rollout.faults()["only"]
        bench.source.name("a")
        await bench.follow()
        assert not bench.rollout.faults()

    asyncio.run(live())


def test_a_shadow_gives_way_and_is_opened_anew_as_champion():
    async def live():
        bench = Bench(Named("a", "b"), shadow=ShadowConfig(share=0.1))
        await bench.follow()
        assert bench.live.candidates["only"].engine.niceness == SHADOW_NICENESS
        bench.source.name("b")
        await bench.follow()
        assert (bench.champion, bench.candidate, bench.running()) == ("b", None, ["b"])
        assert bench.live.tiers["only"].engine.niceness == 0

    asyncio.run(live())


def test_without_a_share_no_candidate_is_opened():
    async def live():
        bench = Bench(Named("a", "b"))
        await bench.follow()
        assert bench.running() == ["a"]

    asyncio.run(live())
