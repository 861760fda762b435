"""Canaries and shadows as clients and operators see them, through the door of a real server."""

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from limbeck.serving.config import CanaryConfig, ShadowConfig
from tests.support.waiting import wait_for


def body(**settings):
    question = settings.pop("question", "高血压有哪些症状？")
    messages = [{"role": "user", "content": question}, *settings.pop("later", ())]
    return {"model": "small", "max_tokens": 3, "messages": messages} | settings


@pytest.fixture
def candidate(running):
    """A candidate of the tier `small`, which is the champion's own process under another key."""

    def set_candidate(**settings):
        champion = running.service.tiers["small"]
        config = champion.config.replace(**settings)
        running.service.set_candidate(replace(champion, config=config, model_key="key-of-the-new"))

    yield set_candidate
    running.service.drop_candidate("small")


def ask(running, **settings):
    found = running.post(body(**settings))
    assert found.status_code == 200
    limbeck = found.json()["limbeck"]
    keys = {"champion": "key-of-the-model", "candidate": "key-of-the-new"}
    assert limbeck["model_key"] == keys[limbeck["role"]] == found.headers["x-limbeck-model-key"]
    return limbeck["role"]


def count(running, name, **labels):
    return sum(
        item.value
        for family in text_string_to_metric_families(running.get("/metrics").text)
        for item in family.samples
        if item.name == name and labels.items() <= item.labels.items()
    )


def test_a_conversation_stays_with_its_model_and_a_user_too(running, candidate):
    assert ask(running) == "champion"
    candidate(canary=CanaryConfig(share=0.5))
    first = [ask(running, question=f"问题{number}") for number in range(24)]
    assert set(first) == {"champion", "candidate"}
    later = [{"role": "assistant", "content": "好"}, {"role": "user", "content": "然后呢？"}]
    assert [ask(running, question=f"问题{number}", later=later) for number in range(24)] == first
    of_user = {ask(running, question=f"问题{number}", user="ada") for number in range(8)}
    assert len(of_user) == 1
    num_candidate = count(running, "limbeck_answers_total", tier="small", role="candidate")
    assert num_candidate >= 2 * first.count("candidate")
    name = "gen_ai_server_request_duration_seconds_count"
    assert count(running, name, gen_ai_response_model="small", role="candidate") == num_candidate
    models = running.get("/v1/models/small").json()["limbeck"]
    assert models["candidate"] == {"state": "ready", "model_key": "key-of-the-new"}


def test_a_shadow_changes_no_answer_and_is_counted(running, candidate):
    plain = running.post(body()).json()
    candidate(shadow=ShadowConfig(share=1.0))
    found = running.post(body()).json()
    assert found["choices"] == plain["choices"] and found["limbeck"] == plain["limbeck"]
    wait_for(lambda: count(running, "limbeck_shadow_answers_total", outcome="same") == 1)
