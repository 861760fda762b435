"""A request without the framework: whether its client is still there."""

import asyncio

import pytest

from limbeck.serving.api.connection import UntilGone, read_body
from limbeck.serving.api.errors import ApiError
from limbeck.serving.api.schema import FeedbackRequest


async def wait(*messages):
    """Waits in a block for a client that sends these messages and then nothing more."""
    left = list(messages)

    async def receive():
        return {"type": left.pop(0)} if left else await asyncio.Future()

    async with UntilGone(receive) as client:
        await (asyncio.Future() if messages else asyncio.sleep(0.05))
    await asyncio.sleep(0)  # nothing is left that would end it here
    return client.is_gone


def test_a_client_that_hangs_up_ends_the_block_and_nothing_beyond():
    assert asyncio.run(wait("http.request", "http.disconnect"))
    assert not asyncio.run(wait())


def test_a_body_that_does_not_come_is_given_up():
    async def receive():
        return await asyncio.Future()

    with pytest.raises(ApiError, match=r"not ended within 0\.001 s") as found:
        asyncio.run(read_body(receive, FeedbackRequest, seconds=0.001))
    assert found.value.status == 408
    assert found.value.headers() == {"X-Should-Retry": "false"}
