"""llama.cpp's server with one GGUF file: a process of its own, run as a script.

It reads its settings as one line of JSON from its input, writes its address as one line, and ends
when its input is closed, as it is when the service ends, however that happens.
"""

import json
import os
import signal
import sys
from typing import Any

import xllamacpp


def main() -> None:
    """Serve until the input is closed."""
    # These reach the whole group; the service decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    settings = json.loads(sys.stdin.readline())
    server = xllamacpp.Server(describe(settings))  # pyright: ignore[reportAttributeAccessIssue]
    sys.stdout.write(server.listening_address + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)  # requests that are open end with it


def describe(settings: dict[str, Any]) -> Any:
    """The settings as llama.cpp has them."""
    params = xllamacpp.CommonParams()  # pyright: ignore[reportAttributeAccessIssue]
    params.model.path = settings["path"]
    params.model_alias = {settings["alias"]}
    params.api_keys = [settings["key"]]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = settings["num_slots"]
    params.n_ctx = settings["num_slots"] * settings["context_tokens"]
    params.cpuparams.n_threads = settings["num_threads"]
    params.cpuparams_batch.n_threads = settings["num_threads"]
    params.endpoint_slots = False  # it shows what is asked
    params.cache_ram_mib = 0  # else up to 8 GiB of old conversations
    params.ui = False
    return params


if __name__ == "__main__":
    main()
