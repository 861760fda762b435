"""A real service under 64 streams: a promotion, a rollback, a damaged model, SIGTERM; none lost."""

import asyncio
import json
import signal

import httpx2 as httpx
import yaml

from limbeck.pipeline.model_registry import ModelRegistry
from limbeck.pipeline.store import Store
from tests.support import tiny_recipe
from tests.support.artifacts import put_in_store
from tests.support.running_service import serve

NUM_CLIENTS = 64
TIER = {"name": "small", "model": "triage", "max_rows": 64, "max_waiting": 256}
BODY = {
    "model": "small",
    "stream": True,
    "messages": [{"role": "user", "content": "高血压有哪些症状？"}],
    "max_tokens": 24,
    "temperature": 1.0,
}


def write_recipe(folder):
    """A recipe whose service has one tier."""
    content = yaml.safe_load(tiny_recipe.RECIPE.read_text(encoding="utf-8"))
    recipe = folder / "mine.yaml"
    recipe.write_text(yaml.safe_dump({**content, "serve": {"tiers": [TIER]}}, allow_unicode=True))
    return recipe


class Clients:
    """64 clients, each of which asks again when its stream has ended."""

    def __init__(self, url):
        self.url = url
        self.keys = []
        """Of the models of whole streams, in the order of their ends."""
        self.lost = []
        self.num_asked = self.num_begun = self.num_open = 0
        self.is_over = False

    async def run(self, client):
        while not self.is_over:
            await self.ask(client)

    async def ask(self, client, *, num_tokens=BODY["max_tokens"]):
        self.num_asked += 1
        body = {**BODY, "max_tokens": num_tokens}
        async with client.stream("POST", self.url + "v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                self.lost.append(f"{response.status_code}: {await response.aread()}")
                return
            self.num_open += 1
            self.num_begun += 1
            lines = [line async for line in response.aiter_lines() if line.startswith("data: ")]
            self.num_open -= 1
        self.num_asked -= 1
        *_, last, done = lines
        end = json.loads(last.removeprefix("data: "))
        if done == "data: [DONE]" and "choices" in end and end["choices"][0]["finish_reason"]:
            self.keys.append(end["limbeck"]["model_key"])
        else:
            self.lost.append(last)

    async def until(self, condition):
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.02)

    async def meet(self, key):
        """Waits until a model has given the latest 64 answers.

        One alone may be a stream that began with the model before.
        """
        num = len(self.keys) + NUM_CLIENTS
        await self.until(lambda: len(self.keys) >= num and set(self.keys[-NUM_CLIENTS:]) == {key})


def test_no_stream_is_lost_by_a_switch_a_rollback_a_damaged_model_or_the_end(bundle, tmp_path):
    store = Store(tmp_path / "runs")
    (old, old_key), (new, new_key), (damaged, _) = (
        put_in_store(bundle, store, name=name) for name in ("old", "new", "damaged")
    )
    registry = ModelRegistry(store)
    registry.promote("triage", old)

    async def live(process, url):
        clients = Clients(url)
        limits = httpx.Limits(max_connections=NUM_CLIENTS + 8)
        async with (
            httpx.AsyncClient(timeout=120, limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(NUM_CLIENTS):
                group.create_task(clients.run(client))
            await clients.meet(old_key)
            registry.promote("triage", new)
            await clients.meet(new_key)
            registry.rollback("triage")
            await clients.meet(old_key)

            registry.promote("triage", damaged)
            (damaged / "NOTE").write_text("changed since")
            async with asyncio.timeout(60):
                while "faults" not in (ready := await client.get(url + "healthz/ready")).json():
                    await asyncio.sleep(0.1)
            assert ready.status_code == 200
            assert "damaged (NOTE)" in ready.json()["faults"]["small"]
            await clients.meet(old_key)

            clients.is_over = True
            await clients.until(lambda: clients.num_asked == 0)
            num_begun, num_whole = clients.num_begun, len(clients.keys)
            for _ in range(NUM_CLIENTS):
                group.create_task(clients.ask(client, num_tokens=8 * BODY["max_tokens"]))
            await clients.until(lambda: clients.num_begun == num_begun + NUM_CLIENTS)
            num_open = clients.num_open
            process.send_signal(signal.SIGTERM)
        assert clients.lost == []
        assert num_open > NUM_CLIENTS // 2
        assert len(clients.keys) == num_whole + NUM_CLIENTS
        return clients

    options = ("--runs", tmp_path / "runs", "--journal", "none", "--log", "json")
    with serve(write_recipe(tmp_path), *options, folder=tmp_path) as (process, url, errors):
        clients = asyncio.run(live(process, url))
        assert process.wait(60) == 0, errors.read_text()
        assert set(clients.keys) == {old_key, new_key}
        log = [json.loads(line) for line in errors.read_text().splitlines() if line[0] == "{"]
    requests = [line for line in log if line["event"] == "request" and "tier" in line]
    assert len(requests) == len(clients.keys)
    assert not any(line["cancelled"] for line in requests)
    others = [line["event"] for line in log if line["event"] != "request"]
    assert [name for name in others if name != "retire"] == [
        *("start", "switch", "switch", "switch failed", "drain", "stop")
    ]
    assert others.count("retire") == 2
