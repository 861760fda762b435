"""The server's socket: connected to before the server runs, and refused when it is taken."""

import socket

import pytest

from limbeck.serving.server import bind


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_client_that_comes_before_the_server_runs_waits(host):
    try:
        found = bind(host, 0)
    except OSError:
        pytest.skip("this machine has no such address")
    with found, socket.create_connection(found.getsockname()[:2], timeout=60) as client:
        client.sendall(b"GET")
        taken, _ = found.accept()
        with taken:
            assert taken.recv(3) == b"GET"


def test_an_address_that_is_taken_is_refused():
    with bind("127.0.0.1", 0) as found, pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", found.getsockname()[1])
