"""What HTTP itself brings along: methods, paths and codings, each answered or named."""

import gzip
import json

import httpx2 as httpx
import pytest

BODY = {"model": "small", "messages": [{"role": "user", "content": "高血压"}], "max_tokens": 2}
CHAT = "/v1/chat/completions"


def send(running, content, *, path=CHAT, **headers):
    headers = {"Content-Type": "application/json", **headers}
    return httpx.post(running.url + path, content=content, headers=headers, timeout=60)


@pytest.mark.parametrize("path", ["/", "/healthz/ready", "/v1/models", "/static/app.js"])
def test_head_is_get_without_a_body(running, path):
    """Monitors and proxies send it."""
    head, whole = httpx.head(running.url + path, timeout=60), running.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", CHAT, "POST"),
        ("HEAD", CHAT, "POST"),
        ("DELETE", "/v1/models/small", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
    ],
)
def test_a_method_that_is_not_there_is_named(running, method, path, allowed):
    found = httpx.request(method, running.url + path, timeout=60)
    assert found.status_code == 405 and found.headers["allow"] == allowed
    if method != "HEAD":
        wanted = f"{path} answers to {allowed.replace(', ', ' and ')}, not to {method}"
        assert found.json()["error"]["message"] == wanted


def test_a_page_of_another_address_is_told_why_it_is_not_let_in(running):
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    found = httpx.options(running.url + CHAT, headers=headers, timeout=60)
    assert found.status_code == 405
    assert "put both behind one address" in found.json()["error"]["message"]


@pytest.mark.parametrize("path", [CHAT + "/", "/v1//chat/completions", "/chat/completions"])
def test_no_path_is_redirected(running, path):
    """A redirect would hold an address that is not the proxy's."""
    found = running.post(BODY, path=path)
    assert found.status_code == 404
    assert f"no route POST {path}; questions go to POST {CHAT}" in found.json()["error"]["message"]


@pytest.mark.parametrize("name", ["org/model", "org%2Fmodel", ""])
def test_a_model_that_is_not_there_is_named_with_those_that_are(running, name):
    error = running.get(f"/v1/models/{name}").json()["error"]
    assert error["code"] == "model_not_found"
    assert error["message"].endswith("there are auto, large, small")


def test_a_packed_body_is_refused_by_its_coding(running):
    packed = send(running, gzip.compress(json.dumps(BODY).encode()), **{"Content-Encoding": "gzip"})
    assert packed.status_code == 415
    assert "found Content-Encoding: gzip; " in packed.json()["error"]["message"]
    assert send(running, json.dumps(BODY), **{"Content-Encoding": "identity"}).is_success


def test_feedback_on_something_that_is_no_answer_is_refused(running):
    """A client's own id would be kept, and meet no answer."""
    found = running.post({"id": "message-7", "rating": "up"}, path="/v1/feedback")
    assert found.status_code == 422
    assert "id: String should match pattern '^chatcmpl-" in found.json()["error"]["message"]


def test_a_body_may_begin_with_a_mark_and_has_to_be_utf_8(running):
    text = json.dumps(BODY, ensure_ascii=False)
    assert send(running, text.encode("utf-8-sig")).is_success
    for encoding, path in (("gb18030", CHAT), ("utf-16", CHAT), ("gb18030", "/v1/feedback")):
        found = send(running, text.encode(encoding), path=path)
        assert found.status_code == 400
        assert "the body is not UTF-8" in found.json()["error"]["message"]
