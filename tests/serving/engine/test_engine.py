"""The engine: its process dies, is cancelled or overrun, and nobody waits for ever."""

import asyncio
import multiprocessing
import os
import signal

import psutil
import pytest

from limbeck.contracts.answerer import Message
from limbeck.contracts.errors import EngineDownError, QueueFullError, RefusedError
from limbeck.serving.engine import worker
from limbeck.serving.engine.decoding import DecodingLoop
from limbeck.serving.engine.engine import ProcessEngine
from limbeck.serving.engine.messages import Finished, Generate, Piece, Sampling
from limbeck.serving.engine.restarts import MAX_STARTS
from limbeck.serving.engine.worker import WorkerSettings

WARM = Sampling(temperature=1.0)
"""Without which a small model soon repeats itself, and is stopped."""
QUESTION = (Message("user", "高血压有哪些症状？"),)


def make_engine(folder, *, num_slots=4, max_waiting=2, **settings):
    return ProcessEngine(
        WorkerSettings(folder, num_slots, 1), name="tiny", max_waiting=max_waiting, **settings
    )


async def read(generation):
    return [event async for event in generation]


def die(connection, settings):
    """A process that ends before it is ready."""
    os._exit(3)


def test_an_engine_lives_through_all_of_it(bundle):
    async def live():
        engine = make_engine(bundle)
        engine.start()
        early = engine.submit(Generate(0, QUESTION, 5))  # before the model is open
        info = await engine.wait_ready()
        assert info.max_tokens > 100
        found = await read(early)
        assert isinstance(found[-1], Finished) and found[-1].num_tokens == 5

        # As many as there are slots and places to wait; the next one is refused, and none is lost.
        full = [engine.submit(Generate(0, QUESTION, 200)) for _ in range(6)]
        with pytest.raises(QueueFullError, match="2 requests wait"):
            engine.submit(Generate(0, QUESTION, 5))
        assert (engine.num_running, engine.num_waiting) == (4, 2)
        full[5].cancel()
        full[0].cancel()
        late = engine.submit(Generate(0, QUESTION, 5))
        ends = await asyncio.gather(*map(read, [*full[1:5], late]))
        assert all(isinstance(found[-1], Finished) for found in ends)
        assert ends[-1][-1].num_tokens == 5
        assert (engine.num_running, engine.num_waiting) == (0, 0)

        with pytest.raises(RefusedError) as refused:
            await read(engine.submit(Generate(0, (Message("user", "高" * 10_000),), 5)))
        assert refused.value.is_too_long

        # Killed: what was being answered fails at once, what comes later is answered.
        killed = engine.submit(Generate(0, QUESTION, 4000, WARM))
        pieces = aiter(killed)
        assert isinstance(await anext(pieces), Piece)
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineDownError, match="started again"):
            await read(pieces)
        after = engine.submit(Generate(0, QUESTION, 5))
        assert (await read(after))[-1].num_tokens == 5
        assert engine.num_restarts == 1 and engine.state == "ready"

        waiting = engine.submit(Generate(0, QUESTION, 4000, WARM))
        await engine.stop()
        with pytest.raises(EngineDownError, match="stopped"):
            await read(waiting)
        with pytest.raises(EngineDownError):
            engine.submit(Generate(0, QUESTION, 5))

    asyncio.run(live())


def test_a_process_that_always_dies_is_given_up(bundle, monkeypatch):
    monkeypatch.setattr("limbeck.serving.engine.restarts.FIRST_WAIT_SECONDS", 0.01)

    async def live():
        engine = make_engine(bundle, target=die)
        engine.start()
        waiting = engine.submit(Generate(0, QUESTION, 5))
        with pytest.raises(EngineDownError, match=f"died {MAX_STARTS} times .exit code 3"):
            await engine.wait_ready()
        with pytest.raises(EngineDownError):
            await read(waiting)
        assert engine.state == "broken"

    asyncio.run(live())


def test_a_process_that_cannot_be_started_again_is_given_up(bundle, monkeypatch):
    monkeypatch.setattr("limbeck.serving.engine.restarts.FIRST_WAIT_SECONDS", 0.01)

    def refuse(method):
        raise OSError("Too many open files")

    async def live():
        engine = make_engine(bundle, target=die)
        engine.start()
        monkeypatch.setattr(multiprocessing, "get_context", refuse)
        waiting = engine.submit(Generate(0, QUESTION, 5))
        async with asyncio.timeout(60):
            with pytest.raises(EngineDownError, match=r"cannot be started .Too many"):
                await engine.wait_ready()
            with pytest.raises(EngineDownError):
                await read(waiting)
        assert engine.state == "broken"

    asyncio.run(live())


def test_who_is_cancelled_while_an_engine_stops_can_stop_it_again(bundle):
    async def live():
        engine = make_engine(bundle)
        engine.start()
        await engine.wait_ready()
        answered = engine.submit(Generate(0, QUESTION, 4000, WARM))
        assert isinstance(await anext(aiter(answered)), Piece)
        process = psutil.Process(engine.pid)
        stopping = asyncio.create_task(engine.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        async with asyncio.timeout(60):
            with pytest.raises(EngineDownError, match="stopped"):
                await read(answered)
            await engine.stop()
        assert not process.is_running()

    asyncio.run(live())


def test_a_process_that_fails_names_the_place_and_not_the_question(monkeypatch, caplog):
    def fail(connection, loop):
        raise ValueError("我叫王小明")

    monkeypatch.setattr(worker, "_serve", fail)
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs, pytest.raises(SystemExit):
        worker._serve_until_fault(theirs, DecodingLoop.__new__(DecodingLoop))
    assert "ValueError at" in caplog.text and "test_engine.py:" in caplog.text
    assert "王小明" not in caplog.text


def test_a_model_that_cannot_be_opened_is_named(tmp_path):
    async def live():
        engine = make_engine(tmp_path)
        engine.start()
        with pytest.raises(EngineDownError, match=r"bundle.json nor config.json"):
            await engine.wait_ready()

    asyncio.run(live())
