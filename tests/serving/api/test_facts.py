"""Stored facts behind the door, asked for by OpenAI's own client, and what is kept of them."""

import httpx2 as httpx
import openai
import pytest

from limbeck.data.packs.stored_facts import make_facts
from limbeck.serving.facts import make_store
from tests.support.running_service import Running

FACT = "头晕、头痛、心悸、颈项板紧\n\n（出处：医学知识库 medical:高血压|symptoms）"


@pytest.fixture(scope="module")
def running(bundle, pack):
    facts = make_store(make_facts(pack), key="key-of-the-facts")
    with Running(bundle, facts=facts) as found:
        yield found


@pytest.fixture(scope="module")
def client(running):
    return openai.OpenAI(base_url=running.url + "/v1", api_key="none", max_retries=0)


def ask(client, question="高血压有哪些症状？", *, model="auto", before=(), **settings):
    turns = [*before, {"role": "user", "content": question}]
    return client.chat.completions.create(model=model, messages=turns, **settings)


def test_a_fact_is_answered_as_any_answer_is(client):
    found = ask(client, temperature=0.7, seed=3)
    (choice,) = found.choices
    assert (choice.message.content, choice.finish_reason) == (FACT, "stop")
    assert found.model == "facts" and found.usage.total_tokens == 0
    assert found.model_extra["limbeck"] == {
        "tier": "facts",
        "route_reason": "fact",
        "model_key": "key-of-the-facts",
        "role": None,
        "source": "medical:高血压|symptoms",
        "status": "answered",
        "confidence": None,
        "machine_made": True,
    }


def test_it_streams_like_any_answer(client):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    text = "".join(item.choices[0].delta.content or "" for item in chunks if item.choices)
    assert text == FACT
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-2].model_extra["limbeck"]["source"] == "medical:高血压|symptoms"
    assert chunks[-1].usage.total_tokens == 0


def test_headers_name_the_tier(running):
    asked = {"model": "auto", "messages": [{"role": "user", "content": "痛风挂什么科"}]}
    found = running.post(asked)
    assert found.headers["X-Limbeck-Tier"] == "facts"
    assert found.headers["X-Limbeck-Route"] == "fact"
    assert found.headers["X-Limbeck-Model-Key"] == "key-of-the-facts"


def test_named_tiers_and_conversations_are_answered_by_models(client):
    before = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "您好"}]
    for settings in ({"model": "small"}, {"before": before}, {"logprobs": True}):
        found = ask(client, max_completion_tokens=4, **settings)
        assert found.model_extra["limbeck"]["tier"] == "small"
        assert found.model_extra["limbeck"]["source"] is None


def test_no_client_names_the_facts(client):
    with pytest.raises(openai.NotFoundError):
        ask(client, model="facts")
    models = {item.id: item for item in client.models.list()}
    assert "facts" not in models
    told = models["auto"].limbeck["facts"]
    assert told["pack"] == "medical" and told["num_facts"] > 0 and told["model_key"]


def test_openapi_names_them(running):
    chat = running.get("/openapi.json").json()["paths"]["/v1/chat/completions"]["post"]
    assert "`facts`" in chat["responses"]["200"]["description"]


def test_they_are_counted_as_a_tier(running, client):
    def count():
        text = running.get("/metrics").text
        label = 'limbeck_answers_total{reason="fact",role="",status="answered",tier="facts"}'
        return next((line for line in text.splitlines() if line.startswith(label)), "0")

    before = float(count().split()[-1])
    ask(client)
    assert float(count().split()[-1]) == before + 1
    assert 'gen_ai_response_model="facts"' in running.get("/metrics").text


def test_they_stay_when_a_model_is_switched(running, client):
    running.service.switch(running.service.tiers["small"])
    assert ask(client).choices[0].message.content == FACT


def test_a_service_without_facts_has_no_such_tier(bundle):
    with Running(bundle) as plain:
        asked = {
            "model": "auto",
            "messages": [{"role": "user", "content": "高血压有哪些症状？"}],
            "max_tokens": 2,
        }
        found = httpx.post(plain.url + "/v1/chat/completions", json=asked, timeout=60).json()
        assert found["limbeck"]["tier"] == "small"
