"""Locust's users of the service: whole answers, streams, and a thumb now and then.

    pip install locust
    locust -f benchmarks/clients/locustfile.py --host http://127.0.0.1:8000 \
        --users 32 --spawn-rate 8 --run-time 1m --headless

A stream counts by its last byte. With keys, set LIMBECK_KEY.
"""

import json
import os
import random
from typing import ClassVar

from locust import (  # pyright: ignore[reportMissingImports]
    FastHttpUser,
    constant_pacing,
    task,
)

SUBJECTS = [
    "高血压",
    "糖尿病",
    "感冒",
    "胃炎",
    "肺炎",
    "哮喘",
    "贫血",
    "痛风",
    "湿疹",
    "鼻炎",
    "咽炎",
    "肝炎",
]
ASKED = ["有哪些常见症状？", "怎么治疗？", "需要做哪些检查？", "应该挂什么科？", "平时要注意什么？"]
KEY = os.environ.get("LIMBECK_KEY", "none")
PATH = "/v1/chat/completions"


class Reader(FastHttpUser):
    """Somebody who asks once a second."""

    wait_time = constant_pacing(1)
    default_headers: ClassVar = {"Authorization": f"Bearer {KEY}"}

    @task(3)
    def ask(self) -> None:
        """A whole answer; what is no answer counts as a failure."""
        with self.client.post(PATH, json=make_request(), catch_response=True) as found:
            if found.status_code == 200 and not found.json()["choices"][0]["message"]["content"]:
                found.failure("an answer without a text")
            if found.status_code == 200 and random.random() < 0.1:
                self.rate(found.json()["id"])

    @task
    def stream(self) -> None:
        """An answer piece by piece."""
        body, name = make_request(stream=True), f"{PATH} (stream)"
        with self.client.post(PATH, json=body, name=name, catch_response=True) as found:
            if found.status_code == 200 and not found.text.endswith("data: [DONE]\n\n"):
                found.failure("a stream without an end")

    def rate(self, id_: str) -> None:
        """A thumb."""
        body = json.dumps({"id": id_, "rating": random.choice(["up", "down"])})
        headers = {"Content-Type": "application/json"}
        self.client.post("/v1/feedback", data=body, headers=headers)


def make_request(**more: object) -> dict[str, object]:
    """A question to whichever tier can answer it."""
    question = random.choice(SUBJECTS) + random.choice(ASKED)
    messages = [{"role": "user", "content": question}]
    return {"model": "auto", "messages": messages, "max_completion_tokens": 32, **more}
