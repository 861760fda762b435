"""`/metrics`: Prometheus's format, OpenTelemetry's names, and what an autoscaler reads."""

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from limbeck.serving.metrics import Metrics, RequestEnd
from limbeck.serving.service import End, Route
from tests.support.waiting import wait_for

BODY = {"model": "small", "messages": [{"role": "user", "content": "高血压？"}], "max_tokens": 4}
PROMTOOL = shutil.which("promtool")
AUTOSCALER = {
    *("limbeck_in_flight", "limbeck_waiting", "limbeck_running", "limbeck_rows"),
    *("limbeck_queue_seconds", "limbeck_tokens", "limbeck_answers", "limbeck_rejected"),
    *("limbeck_tier_up", "limbeck_tier_circuit", "limbeck_model_up", "limbeck_worker_restarts"),
}
OPENTELEMETRY = {
    "gen_ai_server_request_duration_seconds",
    "gen_ai_server_time_to_first_token_seconds",
    "gen_ai_server_time_per_output_token_seconds",
}
"""gen_ai.server.request.duration and so on, with the unit `s` spelt out as Prometheus wants it."""


def read(text):
    return {item.name: item for item in text_string_to_metric_families(text)}


def samples(family, name, **labels):
    return [
        item.value
        for item in family.samples
        if item.name == name and labels.items() <= item.labels.items()
    ]


def test_what_a_service_gives_an_autoscaler(running):
    running.post(BODY)
    running.post({**BODY, "model": "auto"})
    wait_for(
        lambda: (
            samples(read(running.get("/metrics").text)["limbeck_in_flight"], "limbeck_in_flight")
            == [0]
        )
    )
    found = read(running.get("/metrics").text)
    assert set(found) >= AUTOSCALER | OPENTELEMETRY
    up = {item.labels["tier"]: item.value for item in found["limbeck_tier_up"].samples}
    assert up == {"large": 1.0, "small": 1.0}
    assert samples(found["limbeck_rows"], "limbeck_rows", tier="small") == [4]
    who = {"tier": "small", "role": "champion"}
    assert samples(found["limbeck_queue_seconds"], "limbeck_queue_seconds_count", **who)[0] >= 2
    assert samples(found["limbeck_tokens"], "limbeck_tokens_total", type="output", **who)[0] >= 8
    seconds = found["limbeck_tier_processor_seconds"]
    assert samples(seconds, "limbeck_tier_processor_seconds_total", tier="small")[0] > 0
    assert not found["limbeck_cost"].samples  # nobody has set a price
    key = {"role": "champion", "model_key": "key-of-the-model"}
    assert samples(found["limbeck_model_up"], "limbeck_model_up", **key) == [1, 1]
    for name in OPENTELEMETRY:
        for asked in ("small", "auto"):
            labels = {"gen_ai_request_model": asked, "gen_ai_response_model": "small"}
            assert samples(found[name], f"{name}_count", gen_ai_operation_name="chat", **labels)


def outcome(*, error="", end=None, route=None):
    return RequestEnd("small", route, end, error, 0.5, 2.0)


def test_the_time_of_a_token_is_what_the_model_took_not_what_the_client_waited():
    metrics, route = Metrics(), Route("small", "named", "key", "candidate")
    end = End(0, "stop", "answered", 7, 5, None, queue_seconds=0.25, decode_seconds=0.02)
    metrics.observe_outcome(outcome(end=end, route=route))
    found = read(metrics.render().decode())
    name = "gen_ai_server_time_per_output_token_seconds"
    assert samples(found[name], f"{name}_sum", role="candidate") == [pytest.approx(0.005)]
    assert samples(found["limbeck_queue_seconds"], "limbeck_queue_seconds_sum") == [0.25]
    name = "gen_ai_server_time_to_first_token_seconds"
    assert samples(found[name], f"{name}_sum") == [0.5]


def test_a_failure_has_a_duration_with_its_name_and_no_first_token():
    metrics = Metrics()
    metrics.observe_outcome(outcome(error="queue_full"))
    found = read(metrics.render().decode())
    name = "gen_ai_server_request_duration_seconds"
    assert samples(found[name], f"{name}_count", error_type="queue_full") == [1]
    assert not found["gen_ai_server_time_to_first_token_seconds"].samples
    assert not found["limbeck_queue_seconds"].samples


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (Debian's package prometheus)")
def test_promtool_finds_no_fault(running):
    text = running.get("/metrics").text
    found = subprocess.run(
        [str(PROMTOOL), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
