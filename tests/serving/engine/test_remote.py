"""A model at another server: real ones, and a faulty one for what no real one can be made to do."""

import asyncio
import json

import pytest

from limbeck.contracts.answerer import Message
from limbeck.contracts.errors import (
    EngineDownError,
    QueueFullError,
    RefusedError,
    SlowTierError,
)
from limbeck.serving.config import TierConfig
from limbeck.serving.engine.messages import Finished, Generate, Piece, Sampling
from limbeck.serving.engine.remote import RemoteEngine
from limbeck.serving.place import OpenAiHttp
from tests.serving.engine.test_chat_stream import chunk
from tests.support.faulty_server import STREAM, FaultyServer
from tests.support.gguf_files import write_llama
from tests.support.llama_cpp_server import llama_cpp_server
from tests.support.running_service import Running

QUESTION = (Message("user", "高血压有哪些症状？"),)
WARM = Sampling(1.0, seed=3)
ANSWER = b"".join(
    f"data: {item}\n\n".encode() for item in (chunk("好"), chunk(reason="stop"), "[DONE]")
)


def make_engine(url, *, key="", model="small", place=(), **settings):
    given = {"kind": "openai_http", "url": url, "connect_seconds": 20.0, **dict(place)}
    there = OpenAiHttp.model_validate(given)
    config = TierConfig(name="cloud", model=model, place=there, **settings)
    return RemoteEngine(config, there, key=key)


def run(work, engine):
    """What a coroutine of an engine gives, with the engine started and stopped."""

    async def live():
        engine.start()
        try:
            async with asyncio.timeout(120):
                return await work(engine)
        finally:
            await engine.stop()

    return asyncio.run(live())


async def read(engine, request=None, **settings):
    request = request or Generate(0, QUESTION, 5, **settings)
    return [event async for event in engine.submit(request)]


async def read_all(generation):
    return [event async for event in generation]


async def become(engine, state):
    while engine.state != state:
        await asyncio.sleep(0.02)


def split(events):
    text = "".join(event.text for event in events if isinstance(event, Piece))
    return text, [event for event in events if isinstance(event, Finished)]


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_llama(path)
    with llama_cpp_server(path) as url:
        yield url


@pytest.fixture(params=["limbeck", "llama.cpp"])
def real(request):
    """The address of another Limbeck service, and of llama.cpp's server."""
    if request.param == "limbeck":
        return request.getfixturevalue("running").url + "/v1"
    return request.getfixturevalue("llama_cpp")


@pytest.fixture(scope="module")
def running(bundle):
    with Running(bundle) as found:
        yield found


def test_a_real_server_answers_as_a_model_here_does(real):
    async def live(engine):
        text, (end,) = split(await read(engine, sampling=WARM, num_top_log_probs=2))
        again, _ = split(await read(engine, sampling=WARM))
        assert text == again  # the seed was passed on
        assert (end.reason, end.num_tokens) == ("length", 5)
        assert end.num_prompt_tokens > 5
        assert 0 < (end.confidence_ratio or 0) < 1
        await become(engine, "ready")

        several = await read(engine, sampling=WARM, num_choices=2)
        _, ends = split(several)
        assert sorted(item.choice for item in ends) == [0, 1]
        assert sum(item.num_tokens for item in ends) == 10

        long = Generate(0, (Message("user", "长" * 5000),), 5)
        with pytest.raises(RefusedError) as found:
            await read(engine, long)
        assert found.value.is_too_long
        assert engine.state == "ready"

    run(live, make_engine(real))


def test_a_real_server_stops_when_nobody_waits_any_more(running):
    async def live(engine):
        generation = engine.submit(Generate(0, QUESTION, 3000, sampling=WARM))
        async for event in generation:
            assert isinstance(event, Piece)
            break
        assert engine.num_running == 1
        generation.cancel()
        there = running.service.tiers["small"].engine
        while engine.num_running or there.num_running:
            await asyncio.sleep(0.02)

    run(live, make_engine(running.url + "/v1"))


def test_what_is_beyond_the_rows_waits_here_and_then_is_refused(running):
    async def live(engine):
        first = [engine.submit(Generate(0, QUESTION, 300, sampling=WARM)) for _ in range(2)]
        await anext(aiter(first[0]))
        assert (engine.num_running, engine.num_waiting) == (1, 1)
        with pytest.raises(QueueFullError, match="1 requests wait for cloud"):
            engine.submit(Generate(0, QUESTION, 5))
        first[0].cancel()
        _, ends = split([event async for event in first[1]])
        assert ends[0].queue_seconds > 0

    run(live, make_engine(running.url + "/v1", max_rows=1, max_waiting=1))


def test_ids_and_traces_are_passed_on_and_persons_are_not():
    async def live(engine):
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        messages = (Message("user", "我叫张伟，电话13812345678，头痛"),)
        request = Generate(0, messages, 5, request_id="ward-7/42", traceparent=trace)
        text, (end,) = split(await read(engine, request))
        assert (text, end.confidence_ratio) == ("好", None)

    with FaultyServer(STREAM + ANSWER) as server:
        run(live, make_engine(server.url, key="a-secret-key", place={"redact": "always"}))
        run(live, make_engine(server.url))
    (head, _, redacted), (bare, _, whole) = (
        item.partition(b"\r\n\r\n") for item in server.requests
    )
    assert b"x-request-id: ward-7/42\r\n" in head.lower()
    assert b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736" in head.lower()
    assert b"authorization: bearer a-secret-key" in head.lower()
    assert b"authorization" not in bare.lower()
    content = json.loads(redacted)["messages"][0]["content"]
    assert "头痛" in content and "张伟" not in content and "13812345678" not in content
    assert "张伟" in json.loads(whole)["messages"][0]["content"]  # this machine's own server


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (STREAM + b"data: {", EngineDownError, "before the answer's end"),
        (STREAM + f"data: {chunk('hal')}\n\n".encode(), EngineDownError, "before the answer's end"),
        (b"", EngineDownError, "the connection broke before an answer"),
        (b"SSH-2.0-OpenSSH\r\n", EngineDownError, "the connection broke"),
        (STREAM + b"data: hello\n\n", EngineDownError, "no part of a chat completion"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
            *(EngineDownError, "answers text/html"),
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            *(EngineDownError, "not followed"),
        ),
        (
            b"HTTP/1.1 401 No\r\nContent-Length: 20\r\n\r\nkey a-secret-key no!",
            *(EngineDownError, "refuses the key"),
        ),
        (
            b"HTTP/1.1 500 Oh\r\nContent-Length: 20\r\n\r\nkey a-secret-key no!",
            *(EngineDownError, r"key \*\*\* no!"),
        ),
        (
            b"HTTP/1.1 429 Full\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n",
            *(QueueFullError, "is full"),
        ),
    ],
)
def test_a_broken_answer_is_a_named_error(reply, kind, said):
    async def live(engine):
        with pytest.raises(kind, match=f"^cloud: .*{said}") as found:
            await read(engine)
        assert "secret" not in str(found.value)
        if kind is QueueFullError:
            assert found.value.retry_seconds == 30
            with pytest.raises(QueueFullError):  # nor is it asked again before that
                await read(engine)
            assert len(server.requests) == 1

    with FaultyServer(reply) as server:
        run(live, make_engine(server.url, key="a-secret-key"))


def test_a_server_that_hangs_is_given_up_and_its_connection_closed():
    async def live(engine):
        with pytest.raises(SlowTierError, match=r"nothing came for 0.2 s"):
            await read(engine)
        while not server.num_closed:
            await asyncio.sleep(0.02)

    for reply in (b"", STREAM, STREAM + f"data: {chunk('hal')}\n\n".encode()):
        with FaultyServer(reply, hangs=True) as server:
            run(live, make_engine(server.url, place={"idle_seconds": 0.2}))


def test_a_request_that_meets_a_connection_being_closed_is_sent_again():
    head = STREAM.replace(b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % len(ANSWER))

    async def live(engine):
        for _ in range(3):
            assert split(await read(engine))[0] == "好"
        assert (server.num_closed, len(server.requests)) == (2, 3)

    with FaultyServer(head + ANSWER, drops_second=True) as server:
        run(live, make_engine(server.url))


def test_an_answer_that_has_ended_waits_for_no_connection():
    async def live(engine):
        text, _ = split(await read(engine))
        assert text == "好"

    with FaultyServer(STREAM + ANSWER, hangs=True) as server:
        run(live, make_engine(server.url))


def test_a_server_that_goes_away_is_down_and_ready_when_it_is_back(bundle):
    async def live(engine):
        with Running(bundle) as first:
            port = first.socket.getsockname()[1]
            engine._place = engine._place.replace(url=first.url + "/v1")
            engine.start()
            await become(engine, "ready")
        with pytest.raises(EngineDownError, match="cloud: "):
            await read(engine)
        await become(engine, "restarting")
        with pytest.raises(EngineDownError, match="no connection"):
            engine.submit(Generate(0, QUESTION, 5))  # at once, without another attempt
        assert engine.num_restarts == 1
        with Running(bundle, port=port):
            await become(engine, "ready")
            assert split(await read(engine))[1]
        await engine.stop()
        with pytest.raises(EngineDownError):
            engine.submit(Generate(0, QUESTION, 5))

    async def bounded():
        async with asyncio.timeout(120):
            await live(make_engine("http://127.0.0.1:1/v1"))

    asyncio.run(bounded())


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, b"{}", "not ready"),
        (401, b"{}", "refuses the key"),
        (
            *(
                200,
                json.dumps({"data": [{"id": "small", "limbeck": {"state": "broken"}}]}).encode(),
            ),
            "its server's model is broken",
        ),
    ],
)
def test_a_server_is_ready_when_it_lists_its_models(status, body, said):
    head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def live(engine):
        await become(engine, "restarting")
        assert said in engine.broken_because

    with FaultyServer(models=head + body) as server:
        run(live, make_engine(server.url))


def test_what_is_cancelled_before_it_began_leaves_nothing_behind():
    async def live(engine):
        generations = [engine.submit(Generate(0, QUESTION, 5)) for _ in range(4)]
        for generation in generations:
            generation.cancel()
        assert engine.num_waiting == 4
        for generation in generations:
            with pytest.raises(EngineDownError):  # and nobody who still reads waits for ever
                await read_all(generation)
        assert (engine.num_running, engine.num_waiting) == (0, 0)
        assert split(await read(engine))[0] == "好"

    with FaultyServer(STREAM + ANSWER) as server:
        run(live, make_engine(server.url, max_rows=1))


def test_stopping_ends_what_is_open():
    async def live(engine):
        generation = engine.submit(Generate(0, QUESTION, 5))
        reading = asyncio.ensure_future(anext(aiter(generation)))
        while not server.requests:
            await asyncio.sleep(0.02)
        await engine.stop()
        with pytest.raises(EngineDownError, match="stopped"):
            await reading

    with FaultyServer(STREAM, hangs=True) as server:
        run(live, make_engine(server.url))
