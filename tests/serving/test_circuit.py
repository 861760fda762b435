"""A circuit breaker, as pure functions of its state and the time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.contracts.errors import CircuitOpenError, SlowTierError
from limbeck.serving.circuit import CircuitConfig, CircuitState, enter, leave, seconds_to_wait
from limbeck.serving.engine.messages import Finished
from limbeck.serving.tier import Meter, ask_tier
from tests.serving.test_tier import REQUEST
from tests.support.stepped_engine import Stepped, make_tier

CONFIG = CircuitConfig(failures=3, seconds=10.0)


def run(*results, config=CONFIG, state=None):
    """The state after requests that came and ended one after another, a second each."""
    state = state or CircuitState()
    for place, result in enumerate(results):
        now = float(place)
        assert not seconds_to_wait(state, now, config)
        state = leave(enter(state, now), result, began=now, now=now + 1.0, config=config)
    return state


def test_it_opens_after_failures_in_a_row_and_then_lets_one_try():
    assert run("failed", "failed").position == "closed"
    assert run("failed", "failed", "answered", "failed").num_failures == 1
    assert run(*["failed"] * 20, config=CONFIG.replace(failures=0)) == CircuitState()
    opened = run("failed", "neither", "failed", "failed")
    assert (opened.position, opened.since) == ("open", 4.0)
    assert seconds_to_wait(opened, 5.0, CONFIG) == 9.0
    tried = enter(opened, 14.0)
    assert tried.position == "half open" and seconds_to_wait(tried, 15.0, CONFIG) == 9.0

    def end(result):
        return leave(tried, result, began=14.0, now=15.0, config=CONFIG)

    assert end("answered") == CircuitState()
    assert end("failed").position == "open" and seconds_to_wait(end("failed"), 15.0, CONFIG) == 10.0
    assert end("neither").position == "open" and not seconds_to_wait(end("neither"), 15.0, CONFIG)


def test_requests_that_fail_together_count_once():
    state = CircuitState()
    for _ in range(9):
        state = leave(state, "failed", began=1.0, now=2.0, config=CONFIG)
    assert state == CircuitState("closed", 1, 2.0)


@given(st.lists(st.tuples(st.sampled_from(["answered", "failed", "neither"]), st.integers(0, 9))))
def test_nothing_is_refused_for_ever(steps):
    state, now = CircuitState(), 0.0
    for result, age in steps:
        if not seconds_to_wait(state, now, CONFIG):
            state = enter(state, now)
        state = leave(state, result, began=now - float(age), now=now, config=CONFIG)
        assert 0 <= seconds_to_wait(state, now, CONFIG) <= CONFIG.seconds
        now += 1.0


def test_a_tier_that_hangs_is_asked_no_more_until_it_answers():
    async def ask(slow, tier, meter):
        for error, said in ((SlowTierError, "first token"),) * 2 + (
            (CircuitOpenError, "failed 2 times"),
        ):
            with pytest.raises(error, match=said):
                await read(tier, meter)
        assert slow.num_asked == 2 and meter.failures == {"slow": 2, "circuit open": 1}
        slow.go.set()
        await asyncio.sleep(0.06)
        return await read(tier, meter)

    async def read(tier, meter):
        return [event async for event in ask_tier(tier, REQUEST, meter=meter)]

    slow = Stepped("slow", waits=True, is_silent=True)
    circuit = CircuitConfig(failures=2, seconds=0.05)
    tier = make_tier(slow, max_first_token_seconds=0.01, circuit=circuit)
    assert isinstance(asyncio.run(ask(slow, tier, Meter()))[-1], Finished)
    assert tier.circuit.state == CircuitState()
