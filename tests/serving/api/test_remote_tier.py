"""A service whose largest tier is another service: answers, and the best ones where it is down."""

import json

import openai
import pytest

from limbeck.serving.config import BudgetConfig, TierConfig
from limbeck.serving.place import OpenAiHttp
from tests.serving.engine.test_chat_stream import chunk
from tests.support.faulty_server import STREAM, FaultyServer
from tests.support.running_service import Running, wait_for

QUESTION = [{"role": "user", "content": "高血压有哪些症状？"}]


def tiers(url, **settings):
    """A cloud at another server, and a model here that is never sure."""
    place = OpenAiHttp(kind="openai_http", url=url)
    return [
        TierConfig(name="cloud", model="large", place=place, **settings),
        TierConfig(name="mobile", model="bundle", max_rows=4, min_confidence_ratio=1.0),
    ]


def ask(service, **settings):
    body = {"model": "auto", "messages": QUESTION, "max_completion_tokens": 5} | settings
    return service.post(body)


def failures(service, *, tier, why):
    name = f'limbeck_tier_failures_total{{tier="{tier}",why="{why}"}} '
    return next(
        float(line.removeprefix(name))
        for line in service.get("/metrics").text.splitlines()
        if line.startswith(name)
    )


def state(service, name="cloud"):
    return service.get("/healthz/ready").json()["tiers"][name]


@pytest.fixture(scope="module")
def both(bundle, running):
    """A service in front of another one."""
    with Running(bundle, tiers=tiers(running.url + "/v1")) as found:
        wait_for(lambda: state(found) == "ready")
        yield found


def test_what_the_small_tier_is_not_sure_of_another_service_answers(both, running):
    found = ask(both).json()
    there = ask(running, model="large").json()
    assert found["choices"][0]["message"] == there["choices"][0]["message"]
    assert found["usage"] == there["usage"]
    said = found["limbeck"]
    assert (said["tier"], said["route_reason"], said["status"]) == (
        "cloud",
        "escalated",
        "answered",
    )
    assert 0 < said["confidence"] < 1
    host = running.url.removeprefix("http://")
    assert said["model_key"] == f"large@{host}"
    assert "failed_tiers" not in said


def test_openais_client_streams_through_two_services(both):
    client = openai.OpenAI(base_url=both.url + "/v1", api_key="none", max_retries=0)
    settings = {"model": "cloud", "messages": QUESTION, "max_completion_tokens": 6, "n": 2}
    settings |= {"temperature": 1.0, "seed": 3, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**settings)
    texts, num_tokens = ["", ""], 0
    for event in client.chat.completions.create(**settings, stream=True):
        for choice in event.choices:
            texts[choice.index] += choice.delta.content or ""
            num_tokens += len((choice.logprobs and choice.logprobs.content) or ())
    assert texts == [choice.message.content for choice in whole.choices]
    assert num_tokens == whole.usage.completion_tokens == 12


def test_a_prompt_that_the_other_service_cannot_read_is_refused_here(both):
    long = [{"role": "user", "content": "长" * 9000}]
    found = ask(both, model="cloud", messages=long)
    assert found.status_code == 400
    assert found.json()["error"]["code"] == "context_length_exceeded"
    assert ask(both, model="cloud", top_k=3).status_code == 200


def test_where_the_cloud_is_down_the_best_remaining_answer_is_given(bundle):
    with Running(bundle, tiers=tiers("http://127.0.0.1:1/v1")) as service:
        wait_for(lambda: state(service) == "restarting")
        ready = service.get("/healthz/ready")
        assert ready.status_code == 200  # or no replica would be left
        found = ask(service)
        assert found.status_code == 200
        assert found.headers["x-limbeck-route"] == "degraded"
        said = found.json()["limbeck"]
        assert (said["tier"], said["route_reason"], said["status"]) == (
            *("mobile", "degraded"),
            "unknown",
        )
        assert said["failed_tiers"] == {"cloud": "down"}
        draft = ask(service, limbeck={"show_unsure": True}).json()
        assert draft["limbeck"]["status"] == "answered"
        named = ask(service, model="cloud")
        assert named.status_code == 503 and named.headers["retry-after"]
        assert named.json()["error"]["code"] == "model_down"
        assert failures(service, tier="cloud", why="down") == 2
        assert failures(service, tier="mobile", why="down") == 0


def test_a_cloud_without_budget_is_done_without(bundle, running):
    settings = tiers(running.url + "/v1", budget=BudgetConfig(requests_per_minute=1))
    with Running(bundle, tiers=settings) as service:
        assert ask(service).json()["limbeck"]["tier"] == "cloud"
        assert ask(service).json()["limbeck"]["failed_tiers"] == {"cloud": "over budget"}
        named = ask(service, model="cloud")
        assert named.status_code == 503
        assert named.json()["error"]["code"] == "over_budget"
        assert int(named.headers["retry-after"]) > 1


def test_a_cloud_that_hangs_is_done_without_and_one_that_breaks_off_is_an_error(bundle):
    with (
        FaultyServer(hangs=True) as hanging,
        Running(bundle, tiers=tiers(hanging.url, max_answer_seconds=0.2)) as service,
    ):
        assert ask(service).json()["limbeck"]["failed_tiers"] == {"cloud": "slow"}
        named = ask(service, model="cloud")
        assert (named.status_code, named.json()["error"]["code"]) == (503, "model_slow")
        wait_for(lambda: hanging.num_closed == 2)
    half = STREAM + f"data: {chunk('hal')}\n\n".encode()
    with FaultyServer(half) as broken, Running(bundle, tiers=tiers(broken.url)) as service:
        lines = ask(service, model="cloud", stream=True).text.split("\n\n")
        assert (
            json.loads(lines[0].removeprefix("data: "))["choices"][0]["delta"]["content"] == "hal"
        )
        error = json.loads(lines[1].removeprefix("data: "))["error"]
        assert error["code"] == "model_down" and error["message"].startswith("cloud: ")
        assert lines[2] == "data: [DONE]"
