"""Services behind a real port: in a thread of the test, or as a process of `limbeck serve`."""

import asyncio
import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx2 as httpx

from limbeck.serving.api.app import make_app
from limbeck.serving.config import LimitsConfig, ServeConfig, TierConfig
from limbeck.serving.facts import NO_FACTS
from limbeck.serving.keys import Keys
from limbeck.serving.open import ServedModel, open_service
from limbeck.serving.server import Server, bind
from tests.support.tiny_recipe import ROOT
from tests.support.waiting import wait_for

NO_CERTIFICATES = httpx.create_ssl_context(verify=False)
"""Of clients that speak HTTP alone: reading every authority's takes longer than most requests."""


class Running:
    """A server in a thread: of two tiers `large` and `small`, or of those that are given."""

    def __init__(
        self,
        bundle,
        *,
        keys=None,
        limits=None,
        max_rows=4,
        max_waiting=2,
        tiers=(),
        port=0,
        journal=None,
        facts=NO_FACTS,
    ):
        tiers = tiers or [
            TierConfig(name=name, model=str(bundle), max_rows=max_rows, max_waiting=max_waiting)
            for name in ("large", "small")
        ]
        config = ServeConfig(tiers=tuple(tiers), limits=limits or LimitsConfig())
        local = [tier for tier in tiers if tier.remote is None]
        models = {tier.name: ServedModel(bundle, "key-of-the-model") for tier in local}
        self.keys = Keys(keys)
        self.service = open_service(config, models=models, facts=facts)
        self.admission = make_app(self.service, config=config, keys=self.keys, journal=journal)
        self.server = Server(self.admission, drain_seconds=config.limits.drain_seconds)
        self.socket = bind("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.server.serve([self.socket])), daemon=True
        )

    def __enter__(self):
        self.thread.start()
        try:
            wait_for(lambda: is_ready(self.url))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(60)

    def get(self, path, **settings):
        try:
            return httpx.get(self.url + path, timeout=60, verify=NO_CERTIFICATES, **settings)
        except httpx.ConnectError:
            return httpx.Response(599)

    def post(self, content, *, path="/v1/chat/completions", **settings):
        return httpx.post(
            self.url + path, json=content, timeout=60, verify=NO_CERTIFICATES, **settings
        )


@contextmanager
def serve(*words, folder):
    """A process of `limbeck serve` that is ready, its address, and the file of its stderr.

    It ends with the block, whatever happens there.
    """
    output, errors = folder / "stdout", folder / "stderr"
    with output.open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from limbeck.cli.main import main; main()", "serve"),
                *(*map(str, words), "--port", "0"),
            ],
            stdout=out,
            stderr=err,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )

    def lives():
        assert process.poll() is None, f"it ended with {process.returncode}"
        return True

    try:
        wait_for(lambda: lives() and output.read_text().endswith("/\n"))
        url = output.read_text().strip()
        wait_for(lambda: lives() and is_ready(url))
        yield process, url, errors
    except BaseException as error:
        error.add_note(f"limbeck serve wrote:\n{errors.read_text()}")
        raise
    finally:
        process.kill()
        process.wait(60)


def is_ready(url):
    """Whether a service takes requests; one that never will is an error."""
    try:
        address = url.rstrip("/") + "/healthz/ready"
        found = httpx.get(address, timeout=60, verify=NO_CERTIFICATES)
    except httpx.TransportError:
        return False
    assert found.status_code == 200 or "broken" not in found.json()["tiers"].values(), found.text
    return found.status_code == 200
