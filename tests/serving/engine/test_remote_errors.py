"""What another server's refusals stand for."""

import json

import pytest

from limbeck.contracts.errors import EngineDownError, QueueFullError, RefusedError
from limbeck.serving.engine.remote_errors import error_of_status


def error(status, *, body=b"", retry_after=""):
    return error_of_status(status, body=body, retry_after=retry_after)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        *((status, QueueFullError, "is full") for status in (429, 503)),
        *((status, RefusedError, "refuses the request") for status in (400, 413, 422)),
        *((status, EngineDownError, "refuses the key") for status in (401, 403)),
        *((status, EngineDownError, "not followed") for status in (301, 307)),
        *((status, EngineDownError, f"status {status}") for status in (404, 408, 500, 502, 504)),
    ],
)
def test_a_status_is_one_of_the_services_own_errors(status, kind, said):
    found = error(status, body=b'{"error": {"message": "why"}}')
    assert type(found) is kind
    assert said in str(found)


def test_another_limbeck_service_whose_model_is_down_is_not_full():
    body = b'{"error": {"message": "m", "code": "%s"}}'
    assert isinstance(error(503, body=body % b"model_down"), EngineDownError)
    assert isinstance(error(503, body=body % b"queue_full"), QueueFullError)


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7.0), ("0.5", 0.5), ("", 1.0), ("-3", 1.0), ("inf", 1.0), ("x", 1)]
)
def test_the_wait_that_a_full_server_asks_for_is_kept(text, seconds):
    found = error(503, retry_after=text)
    assert isinstance(found, QueueFullError) and found.retry_seconds == seconds


@pytest.mark.parametrize(
    ("body", "is_too_long"),
    [
        ({"error": {"message": "m", "code": "context_length_exceeded"}}, True),  # OpenAI, Limbeck
        ({"error": {"message": "m", "code": 400, "type": "exceed_context_size_error"}}, True),
        ({"error": {"message": "m", "code": "unknown_parameter"}}, False),
        ({"object": "error", "message": "m", "type": "BadRequestError"}, False),  # vLLM
        ({"detail": "m"}, False),  # FastAPI
        ({"error": "m"}, False),
    ],
)
def test_a_prompt_that_is_too_long_is_distinguished_from_other_refusals(body, is_too_long):
    found = error(400, body=json.dumps(body).encode())
    assert str(found) == "its server refuses the request: m"
    assert isinstance(found, RefusedError) and found.is_too_long == is_too_long


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad gateway</html>", b"\xff\xfe", b"[1]", b"3", b"null", b"[" * 100_000]
)
def test_whatever_the_body_is_there_is_a_message(body):
    assert len(str(error(502, body=body))) < 400
