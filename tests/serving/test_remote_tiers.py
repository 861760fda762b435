"""Whether another server is this service: by address, by name, and behind every address."""

import socket

import pytest

from limbeck.contracts.errors import EndpointError
from limbeck.serving.config import ServeConfig, TierConfig
from limbeck.serving.place import OpenAiHttp
from limbeck.serving.remote_tiers import check_not_itself


@pytest.mark.parametrize(
    ("url", "host", "is_itself"),
    [
        ("http://127.0.0.1:8000/v1", "127.0.0.1", True),
        ("http://localhost:8000/v1", "127.0.0.1", True),
        ("http://127.0.0.1:8000/v1", "0.0.0.0", True),
        (f"http://{socket.gethostname()}:8000/v1", "0.0.0.0", True),
        ("http://127.0.0.1:8001/v1", "127.0.0.1", False),
        ("http://192.0.2.1:8000/v1", "0.0.0.0", False),
        ("http://192.0.2.1:8000/v1", "127.0.0.1", False),
        ("http://no-such-host.invalid:8000/v1", "0.0.0.0", False),
    ],
)
def test_a_service_is_no_tier_of_itself(url, host, is_itself):
    place = OpenAiHttp(kind="openai_http", url=url)
    config = ServeConfig(tiers=(TierConfig(name="a", model="m", place=place),))
    if is_itself:
        with pytest.raises(EndpointError, match="itself"):
            check_not_itself(config, host=host, port=8000)
    else:
        check_not_itself(config, host=host, port=8000)
