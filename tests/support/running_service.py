"""A service in a thread of the test, behind a real port."""

import asyncio
import threading
import time

import httpx2 as httpx

from limbeck.serving.api.app import make_app
from limbeck.serving.config import LimitsConfig, ServeConfig, TierConfig
from limbeck.serving.keys import Keys
from limbeck.serving.open import ServedModel, open_service
from limbeck.serving.server import Server, bind


class Running:
    """A server in a thread: of two tiers `large` and `small`, or of those that are given."""

    def __init__(
        self, bundle, *, keys=None, limits=None, max_rows=4, max_waiting=2, tiers=(), port=0
    ):
        tiers = tiers or [
            TierConfig(name=name, model=str(bundle), max_rows=max_rows, max_waiting=max_waiting)
            for name in ("large", "small")
        ]
        config = ServeConfig(tiers=tuple(tiers), limits=limits or LimitsConfig())
        local = [tier for tier in tiers if tier.remote is None]
        models = {tier.name: ServedModel(bundle, "key-of-the-model") for tier in local}
        self.keys = Keys(keys)
        self.service = open_service(config, models=models)
        self.admission = make_app(self.service, config=config, keys=self.keys)
        self.server = Server(self.admission, drain_seconds=config.limits.drain_seconds)
        self.socket = bind("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.server.serve([self.socket])), daemon=True
        )

    def __enter__(self):
        self.thread.start()
        wait_for(lambda: self.get("/healthz/ready").status_code == 200)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(60)

    def get(self, path, **settings):
        try:
            return httpx.get(self.url + path, timeout=60, **settings)
        except httpx.ConnectError:
            return httpx.Response(599)

    def post(self, content, *, path="/v1/chat/completions", **settings):
        return httpx.post(self.url + path, json=content, timeout=60, **settings)


def wait_for(condition, *, seconds=120):
    """Waits for what has to come; a test does not depend on how soon."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
