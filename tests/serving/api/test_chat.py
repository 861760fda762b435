"""The door, met by real clients: a server on this machine, OpenAI's own library, plain HTTP."""

import asyncio
import base64
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import openai
import pytest

from limbeck.serving.config import LimitsConfig
from limbeck.serving.keys import add_key
from tests.support.running_service import Running
from tests.support.waiting import wait_for

QUESTION = [{"role": "user", "content": "高血压有哪些症状？"}]


@pytest.fixture(scope="module")
def client(running):
    return openai.OpenAI(base_url=running.url + "/v1", api_key="none", max_retries=0)


def ask(client, **settings):
    return client.chat.completions.create(
        **{"model": "small", "messages": QUESTION, "max_completion_tokens": 8} | settings
    )


def test_openais_client_gets_an_answer_and_the_same_one_as_a_stream(client):
    whole = ask(client, n=2, temperature=1.0, seed=3, logprobs=True, top_logprobs=2)
    assert len(whole.choices) == 2
    assert whole.usage.completion_tokens == 16
    assert whole.usage.total_tokens == 16 + whole.usage.prompt_tokens
    assert whole.model_extra["limbeck"]["tier"] == "small"
    assert whole.model_extra["limbeck"]["machine_made"] is True
    for choice in whole.choices:
        assert choice.finish_reason == "length"
        assert len(choice.logprobs.content) == 8
        assert all(len(item.top_logprobs) == 2 for item in choice.logprobs.content)
    texts = ["", ""]
    usages = []
    stream = ask(
        client, n=2, temperature=1.0, seed=3, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
        usages.append((len(chunk.choices), chunk.usage))
    assert texts == [choice.message.content for choice in whole.choices]
    # The chunk with the counts comes last, without choices; no other has counts.
    assert usages[-1] == (0, whole.usage)
    assert {usage for _, usage in usages[:-1]} == {None}
    assert all(count for count, _ in usages[:-1])


def test_without_being_asked_a_stream_has_no_counts(client):
    chunks = list(ask(client, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"


def test_what_load_generators_of_other_servers_send_is_taken(running):
    """guidellm asks `/health` first, and has vLLM's option in every stream."""
    assert running.get("/health").json() == running.get("/healthz/ready").json()
    options = {"include_usage": True, "continuous_usage_stats": True}
    content = {"model": "auto", "messages": QUESTION, "stream": True, "stream_options": options}
    found = running.post(content)
    assert found.status_code == 200 and found.text.count('"prompt_tokens"') == 1


def test_the_async_client_many_at_once(running):
    async def many():
        async with openai.AsyncOpenAI(base_url=running.url + "/v1", api_key="x") as client:
            return await asyncio.gather(*(ask(client, seed=number) for number in range(6)))

    found = asyncio.run(many())
    assert len({item.choices[0].message.content for item in found}) == 1
    assert len({item.id for item in found}) == 6


def test_the_next_turn_is_read_from_where_it_goes_on(client):
    turns = [{"role": "user", "content": "高血压有哪些症状，看什么科，平时要注意什么？" * 2}]
    first = client.chat.completions.create(model="small", messages=turns, max_tokens=4)
    turns += [
        {"role": "assistant", "content": "头晕"},
        {"role": "user", "content": "哮喘看什么科？"},
    ]
    second = client.chat.completions.create(model="small", messages=turns, max_tokens=4)
    known = [item.usage.prompt_tokens_details.cached_tokens for item in (first, second)]
    assert known[0] == 0 and 32 <= known[1] < second.usage.prompt_tokens


def test_the_models_are_listed(client):
    names = [item.id for item in client.models.list()]
    assert names == ["auto", "large", "small"]
    assert client.models.retrieve("large").owned_by == "limbeck"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("huge")


def test_content_parts_and_a_system_prompt_are_read(client):
    plain = ask(client)
    parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]
    assert (
        ask(client, messages=parts).choices[0].message.content == plain.choices[0].message.content
    )
    system = [{"role": "system", "content": "短一点"}, *QUESTION]
    assert ask(client, messages=system).usage.prompt_tokens > plain.usage.prompt_tokens


def test_an_answers_message_is_taken_back_as_it_came(client):
    """Clients append it to the conversation, with all that OpenAI's own answers hold besides."""
    first = ask(client).choices[0].message
    more = [{"role": "user", "content": "?"}]
    whole = {**first.model_dump(), "annotations": [], "tool_calls": []}
    plain = {"role": "assistant", "content": first.content}
    texts = {
        ask(client, messages=[*QUESTION, item, *more]).choices[0].message.content
        for item in (first, first.model_dump(), whole, plain)
    }
    assert len(texts) == 1


def test_settings_that_change_nothing_are_taken(client):
    plain = ask(client).choices[0].message.content
    unset = dict.fromkeys(("tools", "tool_choice", "functions", "logit_bias", "max_tokens", "stop"))
    neutral = {"logit_bias": {"7": 0}, "modalities": ["text"], "service_tier": "auto"}
    neutral |= {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "top_logprobs": 0}
    neutral |= {"reasoning_effort": "none", "frequency_penalty": 0, "store": False}
    for settings in (unset, neutral | {"response_format": {"type": "text"}}):
        assert ask(client, extra_body=settings).choices[0].message.content == plain


def test_a_route_that_is_not_there_is_named(running):
    error = running.post({}, path="/v1/responses").json()["error"]
    assert "no route POST /v1/responses; questions go to POST /v1/chat" in error["message"]
    assert error["type"] == "not_found_error"


def test_a_stop_text_is_no_part_of_the_answer(client):
    text = ask(client, max_completion_tokens=20).choices[0].message.content
    found = ask(client, max_completion_tokens=20, stop=[text[3:5]])
    assert found.choices[0].message.content == text[: text.index(text[3:5])]
    assert found.choices[0].finish_reason == "stop"


IMAGE = "data:image/png;base64," + base64.b64encode(b"not an image").decode()
FAULTS = [
    ({"model": "huge"}, 404, "auto, large, small"),
    ({"temperature": 9}, 422, "temperature"),
    ({"messages": []}, 422, "messages"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, 422, "expected the user's"),
    ({"messages": [{"role": "tool", "content": "x"}]}, 422, "role"),
    ({"max_tokens": 3, "max_completion_tokens": 3}, 422, "one of them"),
    ({"top_logprobs": 3}, 422, "logprobs: true"),
    ({"frequency_penalty": 0.5}, 400, "leave it out, or send 0"),
    ({"store": True}, 400, "leave it out, or send false"),
    ({"tools": [{}]}, 400, "'tools' is not supported"),
    ({"tool_choice": "required"}, 400, 'send "none" or "auto"'),
    ({"reasoning_effort": "low"}, 400, "'reasoning_effort' is not supported"),
    ({"logit_bias": {"50256": -100}}, 400, "'logit_bias.50256' is not supported"),
    ({"best_of": 2}, 400, "unknown key 'best_of'"),
    ({"response_format": {"type": "json_object"}}, 400, "describe the wanted JSON in the prompt"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
        400,
        "'response_format.type' is not supported",
    ),
    (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}, *QUESTION]},
        400,
        "'messages.0.tool_calls' is not supported",
    ),
    ({"max_tokenz": 3}, 400, "max_tokenz"),
    ({"stop": [""]}, 422, "stop.0: String should have at least 1 character"),
    ({"stop": ["a"] * 17}, 422, "stop: List should have at most 16"),
    ({"messages": [{"role": "user", "content": None}]}, 422, "a valid string or a valid array"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "", "id": ""}]}]},
        400,
        "unknown key 'messages.0.content.0.id'",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        422,
        "messages.0.content.0: Input tag 'input_audio'",
    ),
    ({"messages": [{"role": "user", "content": "高" * 5000}]}, 400, "reads at most 4095"),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": IMAGE}}]}
            ]
        },
        400,
        "no image encoder",
    ),
    (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}],
                }
            ]
        },
        400,
        "nothing is fetched",
    ),
]


@pytest.mark.parametrize(("change", "status", "named"), FAULTS)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_named(running, change, status, named, stream):
    body = {"model": "small", "messages": QUESTION, "stream": stream} | change
    found = running.post(body)
    error = found.json()["error"]
    assert found.status_code == status, error
    assert named in error["message"]
    assert error["type"] in ("invalid_request_error", "not_found_error")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback"])
@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_declared_as_json_is_415(running, path, kind):
    """Pages of other sites may send all kinds but JSON without being allowed to."""
    headers = {"Content-Type": kind} if kind else {}
    found = httpx.post(running.url + path, content=b"{}", headers=headers, timeout=60)
    assert found.status_code == 415
    assert "Content-Type: application/json" in found.json()["error"]["message"]
    assert httpx.post(running.url + "/v1/models", timeout=60).status_code == 405


def test_what_is_no_json_is_400(running):
    for content in (b"{", b"\xff\xfe", b"", b"[1"):
        found = httpx.post(
            running.url + "/v1/chat/completions",
            content=content,
            headers={"Content-Type": "application/json"},
            timeout=60,
        )
        assert found.status_code in (400, 422)
        assert found.json()["error"]["message"]


def test_a_client_that_hangs_up_frees_its_row(running):
    engine = running.service.tiers["small"].engine
    body = {"model": "small", "messages": QUESTION, "temperature": 1.0, "max_tokens": 4000}
    body["seed"] = 1  # with which the answer is a long one
    for stream in (True, False):
        with (
            pytest.raises(httpx.ReadTimeout),
            httpx.stream(
                "POST",
                running.url + "/v1/chat/completions",
                json={**body, "stream": stream},
                timeout=httpx.Timeout(60, read=0.05),
            ) as response,
        ):
            wait_for(lambda: engine.num_running > 0)
            for _ in response.iter_raw():
                break
            raise httpx.ReadTimeout("hung up", request=response.request)
        wait_for(lambda: engine.num_running == 0)


def test_too_many_are_refused_at_once_and_none_is_lost(running):
    body = {"model": "small", "messages": QUESTION, "temperature": 1.0, "max_tokens": 300}
    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(lambda seed: running.post({**body, "seed": seed}), range(24)))
    statuses = [item.status_code for item in found]
    assert set(statuses) <= {200, 503}
    for item in found:
        if item.status_code == 503:
            assert int(item.headers["retry-after"]) >= 1
            assert item.json()["error"]["code"] == "queue_full"
    assert running.post({**body, "max_tokens": 3}).status_code == 200


def test_headers_name_who_answered(running):
    found = running.post({"model": "auto", "messages": QUESTION, "max_tokens": 4})
    assert found.headers["x-limbeck-tier"] == "small"
    assert found.headers["x-limbeck-route"] == "smallest tier"
    assert found.headers["x-limbeck-model-key"] == "key-of-the-model"
    assert found.headers["x-limbeck-machine-made"] == "true"
    assert found.headers["x-request-id"].startswith("req-")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in found.headers["content-security-policy"]
    assert (
        "access-control-allow-origin"
        not in running.get("/v1/models", headers={"Origin": "https://elsewhere.example"}).headers
    )


def test_a_dead_tier_is_stood_in_for(running):
    import os
    import signal

    engine = running.service.tiers["small"].engine
    os.kill(engine.pid, signal.SIGKILL)
    wait_for(lambda: engine.num_restarts > 0)
    found = running.post({"model": "auto", "messages": QUESTION, "max_tokens": 4})
    assert found.status_code == 200
    wait_for(lambda: running.get("/healthz/ready").status_code == 200)
    assert (
        running.post({"model": "small", "messages": QUESTION, "max_tokens": 4}).status_code == 200
    )


def test_ready_names_why_a_model_cannot_be_opened(bundle, tmp_path):
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    (damaged / "model.onnx").write_bytes(b"cut")
    with (
        pytest.raises(AssertionError, match=r'"faults":.*"(large|small)":"[^"]*damaged'),
        Running(damaged),
    ):
        pass


def test_keys_are_needed_scoped_counted_and_changed_while_it_runs(bundle, tmp_path):
    path = tmp_path / "keys.json"
    first = add_key(path, name="ward", scopes=("chat",))
    assert first not in path.read_text()
    body = {"model": "small", "messages": QUESTION, "max_tokens": 2}
    limits = LimitsConfig(max_body_bytes=2000)
    with Running(bundle, keys=path, limits=limits) as running:

        def post(key, **settings):
            return running.post(body, headers={"Authorization": f"Bearer {key}"}, **settings)

        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {first}"}):
            found = running.post(body, headers=headers)
            assert found.status_code == 401
            assert found.json()["error"]["code"] == "invalid_api_key"
        assert post(first).status_code == 200
        assert (
            running.get("/metrics", headers={"Authorization": f"Bearer {first}"}).status_code == 403
        )
        assert running.get("/healthz/live").status_code == 200
        second = add_key(path, name="other", scopes=("chat",))
        assert post(second).status_code == 200
        content = json.loads(path.read_text())
        content["keys"] = [{**content["keys"][1], "requests_per_minute": 2}]
        path.write_text(json.dumps(content))
        assert post(first).status_code == 401
        assert [post(second).status_code for _ in range(2)] == [200, 429]
        limited = post(second)
        assert limited.status_code == 429 and int(limited.headers["retry-after"]) >= 1
        big = {**body, "user": "x" * 3000}
        third = add_key(path, name="third", scopes=("chat",))
        headers = {"Authorization": f"Bearer {third}"}
        assert running.post(big, headers=headers).status_code == 413
        chunks = iter([json.dumps(big).encode()[:1500], json.dumps(big).encode()[1500:]])
        unsaid = httpx.post(
            running.url + "/v1/chat/completions",
            content=chunks,
            headers={**headers, "Content-Type": "application/json"},
            timeout=60,
        )
        assert unsaid.status_code == 413


def test_draining_finishes_what_has_begun(bundle):
    body = {"model": "small", "messages": QUESTION, "temperature": 1.0, "seed": 1, "stream": True}
    with Running(bundle) as running:
        whole = running.post({**body, "stream": False, "max_tokens": 1500}).json()
        text = ""
        with httpx.stream(
            "POST",
            running.url + "/v1/chat/completions",
            json={**body, "max_tokens": 1500},
            timeout=60,
        ) as response:
            lines = response.iter_lines()
            next(lines)
            running.server.handle_exit(15, None)
            assert running.get("/healthz/ready").status_code in (503, 599)
            refused = running.get("/healthz/live").status_code
            for line in [*lines]:
                if line.startswith("data: {"):
                    choices = json.loads(line[6:])["choices"]
                    text += (choices[0]["delta"].get("content") or "") if choices else ""
        assert refused in (200, 599)
        assert whole["choices"][0]["message"]["content"].endswith(text[1:])
        running.thread.join(60)
        assert not running.thread.is_alive()
