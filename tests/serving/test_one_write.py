"""Heads of answers wait for what follows them, and for nothing else."""

import asyncio
import socket
import threading

import pytest
import uvicorn

from limbeck.serving import one_write
from limbeck.serving.one_write import MAX_HEAD_BYTES, HeldHeads, OneWrite
from limbeck.serving.server import bind

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Written(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.writes, self.is_closed = [], False

    def write(self, data):
        self.writes.append(bytes(data))

    def close(self):
        self.is_closed = True

    def is_closing(self):
        return self.is_closed


def run(act):
    """What was written at once, and in all after a turn of the event loop."""

    async def turn():
        inner = Written()
        act(HeldHeads(inner, loop=asyncio.get_running_loop()))
        at_once = list(inner.writes)
        await asyncio.sleep(0)
        return at_once, inner.writes

    return asyncio.run(turn())


def test_a_head_and_what_follows_are_one_write():
    at_once, _ = run(lambda transport: [transport.write(part) for part in (HEAD, b"a", b"b")])
    assert at_once == [HEAD + b"a", b"b"]


def test_a_head_alone_goes_out_at_the_end_of_the_turn():
    assert run(lambda transport: transport.write(HEAD)) == ([], [HEAD])


def test_a_head_goes_out_before_the_end_of_the_connection():
    at_once, later = run(lambda transport: (transport.write(HEAD), transport.close()))
    assert at_once == later == [HEAD]


async def answer(scope, receive, send):
    """The path's parts, or what is sent to /echo, each as a part of the body in its own turn."""
    if scope["type"] != "http":
        return
    message = await receive()
    body = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (
        [body.decode()] if scope["path"] == "/echo" else scope["path"].strip("/").split("/")
    ):
        await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": part.encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def port():
    listening = bind("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(answer, http=OneWrite, log_config=None, lifespan="off", access_log=False)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize(
    ("request_lines", "expected"),
    [
        (["GET /ab/c HTTP/1.1"], [b"\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"]),
        (["HEAD /ab HTTP/1.1"], [b"connection: close\r\n\r\n"]),
        (["POST / HTTP/1.1", "Expect: 100-continue", "Content-Length: 0"], [b"HTTP/1.1 200 OK"]),
        (["GET / nonsense"], [b"HTTP/1.1 400 Bad Request", b'{"error": {"message": "this is no ']),
    ],
)
def test_a_client_gets_whole_answers(port, request_lines, expected):
    lines = [*request_lines, "Host: localhost", "Connection: close", "", ""]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall("\r\n".join(lines).encode())
        found = b""
        while part := client.recv(65536):
            found += part
    assert found.startswith(b"HTTP/1.1 ")
    for text in expected:
        assert text in found


@pytest.mark.parametrize("is_after_body", [False, True])
def test_headers_without_an_end_are_given_up(port, is_after_body):
    """All that is sent has been read by then, so that no reset takes the answer back."""
    text = "GET / HTTP/1.1\r\nX: "
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        if is_after_body:
            head = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
            client.sendall(head.encode())
            assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
            text = "0\r\nX: "
        client.sendall(text.encode().ljust(MAX_HEAD_BYTES + 1, b"a"))
        found = b""
        while part := client.recv(65536):
            found += part
    assert found.startswith(b"HTTP/1.1 431 ") and b"headers of more than 65,536 bytes" in found


def test_a_client_that_reads_nothing_is_given_up(port, monkeypatch):
    monkeypatch.setattr(one_write, "STALLED_SECONDS", 0.0)
    body = b"a" * 2**24
    head = f"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(head.encode() + body)
        num_bytes = 0
        while part := client.recv(65536):
            num_bytes += len(part)
    assert num_bytes < len(body)


def test_a_client_that_waits_for_leave_to_send_gets_it(port):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        head = (
            "POST /ab HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
        )
        client.sendall(f"{head}Connection: close\r\n\r\n".encode())
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        found = b""
        while part := client.recv(65536):
            found += part
    assert found.startswith(b"HTTP/1.1 200 OK") and b"\r\n2\r\nab\r\n0\r\n\r\n" in found


def test_a_request_that_offers_another_protocol_keeps_its_body(port):
    """As Java's HTTP client and `curl --http2` send it; the connection goes on as it was."""
    head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(f"{head}{offer}\r\nfir".encode())
        client.sendall(b"st")
        found = b""
        while not found.endswith(b"0\r\n\r\n"):
            found += client.recv(65536)
        assert b"\r\n5\r\nfirst\r\n" in found and b"connection: close" not in found
        client.sendall(f"{head}{offer.replace(': Up', ': close, Up')}\r\nagain".encode())
        found = b""
        while part := client.recv(65536):
            found += part
    assert b"\r\n5\r\nagain\r\n" in found and b"connection: close" in found
