"""A GGUF file in llama.cpp's server: opened, asked, killed, stopped, and one that is damaged."""

import asyncio
import os
import signal

import httpx2
import psutil
import pytest

from limbeck.contracts.answerer import Message
from limbeck.contracts.errors import EngineDownError, QueueFullError, RefusedError
from limbeck.serving.config import GGUF_ROWS, TierConfig
from limbeck.serving.engine import llama_cpp, restarts
from limbeck.serving.engine.llama_cpp import LlamaCppEngine
from limbeck.serving.engine.messages import Finished, Generate, Piece, Sampling
from limbeck.serving.engine.restarts import MAX_STARTS
from limbeck.serving.place import LlamaCpp
from tests.support.gguf_files import write_llama

QUESTION = (Message("user", "Hi"),)
WARM = Sampling(1.0, seed=3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_llama(path)
    return path


def make_engine(path, **settings):
    config = TierConfig(
        **{"name": "file", "model": str(path), "num_threads": 1, "max_rows": 2, **settings},
    )
    assert isinstance(config.place, LlamaCpp)
    return LlamaCppEngine(config, config.place, path=path)


def run(live):
    async def bounded():
        async with asyncio.timeout(120):
            await live()

    asyncio.run(bounded())


async def read(generation):
    return [event async for event in generation]


async def become(engine, state):
    while engine.state != state:
        await asyncio.sleep(0.02)


def test_a_file_is_a_model_like_others(tiny):
    async def live():
        engine = make_engine(tiny)
        engine.start()
        # Before the model is open requests wait.
        early = [engine.submit(Generate(0, QUESTION, 5, sampling=WARM)) for _ in range(3)]
        assert engine.num_waiting == 3
        early[2].cancel()
        first, second = await asyncio.gather(*map(read, early[:2]))
        assert isinstance(first[-1], Finished)
        texts = [
            "".join(e.text for e in found if isinstance(e, Piece)) for found in (first, second)
        ]
        assert texts[0] == texts[1]
        assert first[-1].num_tokens == 5 and 0 < (first[-1].confidence_ratio or 0) < 1
        with pytest.raises(RefusedError) as found:
            await read(engine.submit(Generate(0, (Message("user", "x" * 4000),), 5)))
        assert found.value.is_too_long

        # A control token in a user's words is text: its characters, and what is put between them.
        async def count(text):
            turns = (Message("user", text),)
            return (await read(engine.submit(Generate(0, turns, 1))))[-1].num_prompt_tokens

        assert await count("</s>") == await count("?") + len("</s>") + 2

        pid = engine.pid
        await engine.stop()
        assert not psutil.pid_exists(pid)
        with pytest.raises(EngineDownError):
            engine.submit(Generate(0, QUESTION, 5))

    run(live)


def test_a_process_that_dies_is_started_again_and_what_it_answered_fails(tiny):
    async def live():
        engine = make_engine(tiny)
        engine.start()
        await engine.wait_ready()
        await read(engine.submit(Generate(0, QUESTION, 2)))
        # An answer takes 20 ms, less than this process may be held up: with many, the last is open.
        open_ = [engine.submit(Generate(0, QUESTION, 100, sampling=WARM)) for _ in range(40)]
        async for _ in open_[0]:
            os.kill(engine.pid, signal.SIGKILL)
            break
        with pytest.raises(EngineDownError):
            await read(open_[-1])
        await become(engine, "restarting")
        with pytest.raises(EngineDownError, match="started again"):
            engine.submit(Generate(0, QUESTION, 5))
        await become(engine, "ready")
        assert engine.num_restarts == 1
        assert isinstance((await read(engine.submit(Generate(0, QUESTION, 2))))[-1], Finished)
        # What a terminal or a supervisor sends to the whole group does not end it.
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(engine.pid, number)
        assert isinstance((await read(engine.submit(Generate(0, QUESTION, 2))))[-1], Finished)
        await engine.stop()

    run(live)


def test_only_who_has_the_key_is_answered(tiny):
    async def live():
        engine = make_engine(tiny)
        engine.start()
        await engine.wait_ready()
        (connection,) = [
            item for item in psutil.Process(engine.pid).net_connections() if item.status == "LISTEN"
        ]
        assert connection.laddr.ip == "127.0.0.1"
        url = f"http://127.0.0.1:{connection.laddr.port}"
        async with httpx2.AsyncClient() as client:
            for path in ("/v1/chat/completions", "/slots", "/props", "/completion"):
                assert (await client.post(url + path, json={})).status_code == 401
        await engine.stop()

    run(live)


def test_a_file_that_cannot_be_opened_is_broken_and_gives_the_reason(tmp_path, tiny):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(tiny.read_bytes()[:3000])

    async def live():
        engine = make_engine(damaged, max_waiting=1)
        engine.start()
        early = engine.submit(Generate(0, QUESTION, 5))
        with pytest.raises(QueueFullError):
            engine.submit(Generate(0, QUESTION, 5))
        with pytest.raises(EngineDownError, match=f"ended {MAX_STARTS} times with damaged.gguf"):
            await read(early)
        assert engine.state == "broken"
        assert str(tmp_path) not in engine.broken_because.partition(": ")[0]
        await engine.stop()

    run(live)


def test_a_process_that_gives_no_address_is_broken_and_what_waits_fails(
    tmp_path, tiny, monkeypatch
):
    script = tmp_path / "script.py"
    script.write_text("import sys; print('loading', flush=True); sys.stdin.read()")
    monkeypatch.setattr(llama_cpp, "SCRIPT", script)
    monkeypatch.setattr(restarts, "FIRST_WAIT_SECONDS", 0.01)

    async def live():
        engine = make_engine(tiny)
        engine.start()
        early = engine.submit(Generate(0, QUESTION, 5))
        with pytest.raises(EngineDownError, match=f"ended {MAX_STARTS} times.*address"):
            await read(early)
        assert (engine.state, engine.pid) == ("broken", 0)

    run(live)


def test_it_ends_with_the_service_however_that_ends(tiny):
    """The process reads its input, which is closed when the service's process is gone."""

    async def live():
        engine = make_engine(tiny)
        engine.start()
        await engine.wait_ready()
        process = engine._process
        assert process is not None and process.stdin is not None
        process.stdin.close()
        await process.wait()
        await engine.stop()

    run(live)


def test_nothing_stays_open_where_it_is_stopped_while_its_process_dies(tiny):
    async def live():
        engine = make_engine(tiny)
        engine.start()
        await engine.wait_ready()
        await read(engine.submit(Generate(0, QUESTION, 2)))
        server, process = engine._server, engine._process
        assert server is not None and process is not None and process.stdin is not None
        (listening,) = [
            item for item in psutil.Process(engine.pid).net_connections() if item.status == "LISTEN"
        ]
        process.stdin.close()
        while server.state != "stopped":
            await asyncio.sleep(0)
        await engine.stop()
        left = [item.raddr for item in psutil.Process().net_connections() if item.raddr]
        assert listening.laddr.port not in [address.port for address in left]
        assert engine.pid == 0

    run(live)


def test_settings_of_a_file():
    def read_config(**settings):
        return TierConfig.model_validate({"name": "a", "model": "x.gguf"} | settings)

    assert read_config().place == LlamaCpp() and read_config().max_rows == GGUF_ROWS
    assert read_config(max_rows=9).max_rows == 9
    assert read_config(place={"kind": "llama_cpp", "context_tokens": 99}).max_rows == GGUF_ROWS
    assert read_config(place="llama_cpp").place == LlamaCpp()
    remote = {"kind": "openai_http", "url": "http://127.0.0.1:1/v1"}
    assert read_config(place=remote).max_rows == 64  # llama.cpp's server names models so
    assert read_config().replace(max_waiting=3).place == LlamaCpp()
    for wrong, said in (
        ({"place": "local"}, "set place.kind: llama_cpp"),
        ({"place": "llama_cpp", "model": "bundle"}, "does not end in .gguf"),
        ({"shadow": {"share": 0.1}}, "no candidate"),
        ({"max_prefix_bytes": 5}, "max_prefix_bytes"),
    ):
        with pytest.raises(ValueError, match=said):
            read_config(**wrong)
