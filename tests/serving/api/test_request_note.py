"""What the log says of requests: who, what became of it, and nothing of its content."""

import logging
import os
import signal

import httpx2 as httpx
import pytest

from limbeck.serving.api.request_note import open_note
from limbeck.serving.keys import add_key
from limbeck.serving.log import FIELDS, JsonFormatter
from tests.support.running_service import Running
from tests.support.waiting import wait_for

SECRET = "胸前有一块只有我知道的红斑"
BODY = {"model": "small", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 4}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def lines(caplog):
    """The fields of every request that was logged, in order."""
    caplog.set_level(logging.INFO, "limbeck.serving")

    def read():
        texts = [JsonFormatter().format(record) for record in caplog.records]
        assert not any(SECRET in text for text in texts)
        found = [record.__dict__.get(FIELDS, {}) for record in caplog.records]
        return [item for item in found if item.get("event") == "request"]

    return read


@pytest.mark.parametrize("given", ["", "two words", 'a"b', "é", "x" * 129, "-x", "a\nb"])
def test_an_id_that_is_not_sane_is_replaced(given):
    note = open_note(method="GET", path="/", headers={b"x-request-id": given.encode("latin-1")})
    assert note.request_id == f"req-{note.unique}"


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACE),
        (f"01-{TRACE}-{SPAN}-01-more", TRACE),
        (f"ff-{TRACE}-{SPAN}-01", ""),
        (f"00-{'0' * 32}-{SPAN}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-{SPAN}-01", ""),
        (f"00-{TRACE}-{SPAN}", ""),
    ],
)
def test_a_trace_is_carried_where_the_header_is_well_formed(header, trace):
    note = open_note(method="GET", path="/", headers={b"traceparent": header.encode()})
    assert note.trace_id == trace and note.span_id == (SPAN if trace else "")


def test_an_answer_is_logged_without_its_texts(running, lines):
    headers = {"X-Request-Id": "ward-7/42", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    for count, stream in enumerate((False, True), start=1):
        found = running.post({**BODY, "stream": stream}, headers=headers)
        assert found.headers["x-request-id"] == "ward-7/42"
        wait_for(lambda count=count: len(lines()) == count)
    first, second = lines()
    assert (first["stream"], second["stream"]) == (False, True)
    assert first["id"] != second["id"]  # of the journal; the client may repeat its own
    for line in (first, second):
        assert line["request_id"] == "ward-7/42" and line["trace_id"] == TRACE
        assert (line["status"], line["tier"], line["role"]) == (200, "small", "champion")
        assert (line["route_reason"], line["model_key"]) == ("named", "key-of-the-model")
        assert line["output_tokens"] == 4 and line["input_tokens"] > 0
        assert 0 <= line["queue_seconds"] <= line["total_seconds"]
        assert 0 < line["first_token_seconds"] <= line["total_seconds"]
        assert line["cancelled"] is False


def test_what_is_refused_is_logged_by_a_name(running, lines):
    running.post({**BODY, "model": "huge"})
    running.post({**BODY, "max_tokenz": 3})
    running.post({**BODY, "messages": [{"role": "user", "content": SECRET * 999}]})
    running.get("/healthz/live")  # a probe that succeeds is no line
    running.get("/nowhere?question=" + SECRET)
    wait_for(lambda: len(lines()) == 4)
    assert [(line["status"], line["error"]) for line in lines()] == [
        (404, "model_not_found"),
        (400, "unknown_parameter"),
        (400, "context_length_exceeded"),
        (404, "not_found_error"),
    ]


def test_a_client_that_hangs_up_before_the_first_word_is_logged_as_such(running, lines):
    engine = running.service.tiers["small"].engine
    os.kill(engine.pid, signal.SIGSTOP)  # so that no word comes
    try:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                running.url + "/v1/chat/completions",
                json={**BODY, "stream": True},
                timeout=httpx.Timeout(60, read=0.2),
            )
        wait_for(lambda: lines())
    finally:
        os.kill(engine.pid, signal.SIGCONT)
    (line,) = lines()
    assert (line["status"], line["cancelled"], line["answer_status"]) == (499, True, "cancelled")
    assert engine.num_running == 0


def test_a_key_is_logged_by_its_name(bundle, tmp_path, lines, caplog):
    path = tmp_path / "keys.json"
    key = add_key(path, name="ward-7", scopes=("feedback",))
    with Running(bundle, keys=path) as running:
        running.post(BODY, headers={"Authorization": f"Bearer {key}"})
        running.post(BODY, headers={"Authorization": "Bearer wrong"})
    assert [(line["status"], line["error"]) for line in lines()] == [(403, "scope"), (401, "key")]
    assert key not in caplog.text and "wrong" not in caplog.text
