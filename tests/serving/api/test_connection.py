"""A request without the framework: whether its client is still there."""

import asyncio

from limbeck.serving.api.connection import UntilGone


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
