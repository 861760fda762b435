"""The same file in llama.cpp: its tokens and its next-token probabilities.

llama.cpp runs in a process of its own (its server, in the package xllamacpp), so that a fault of
native code is an error here and not the end of a run.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import httpx2

from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.json_data import JsonObject

READY = "listening at "
TIMEOUT_SECONDS = 600
CONTEXT_TOKENS = 512
SERVE = f"""
import sys
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx = {CONTEXT_TOKENS}
params.cpuparams.n_threads = 1
params.warmup = False
server = xllamacpp.Server(params)
print("{READY}" + server.listening_address, flush=True)
sys.stdin.read()
"""
"""Ends when its input is closed, as it is when the parent dies."""


class LlamaCppModel:
    """A model in llama.cpp."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def encode(self, text: str) -> list[int]:
        """The tokens of a text in which no special token is meant."""
        found = self._post("/tokenize", {"content": text, "add_special": False})
        return found["tokens"]

    def next_tokens(self, tokens: Sequence[int], *, num: int) -> dict[int, float]:
        """The likeliest next tokens and their log-probabilities, in nats, likeliest first.

        Empty where the likeliest token is part of a character, which llama.cpp does not report.
        """
        found = self._post(
            "/completion",
            {"prompt": list(tokens), "n_predict": 1, "temperature": 0.0, "n_probs": num},
        )
        for entry in found.get("completion_probabilities", ()):
            return {item["id"]: item["logprob"] for item in entry["top_logprobs"]}
        return {}

    def _post(self, path: str, body: JsonObject) -> JsonObject:
        try:
            return self._client.post(path, json=body).raise_for_status().json()
        except (httpx2.HTTPError, ValueError) as error:
            raise CheckpointError(f"llama.cpp failed to answer {path}: {error!r}") from None


@contextmanager
def open_llama_cpp(path: Path) -> Iterator[LlamaCppModel]:
    """llama.cpp with a GGUF file, for as long as the block runs.

    Raises:
        CheckpointError: llama.cpp cannot load the file.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            address = _wait(process, log=log, path=path)
            with httpx2.Client(base_url=address, timeout=TIMEOUT_SECONDS) as client:
                yield LlamaCppModel(client)
        finally:
            process.kill()
            process.communicate()


def _wait(process: subprocess.Popen[str], *, log: BinaryIO, path: Path) -> str:
    """The address at which llama.cpp listens."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(READY):
            return line.removeprefix(READY).strip()
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").strip().splitlines()
    raise CheckpointError(
        f"{path}: llama.cpp cannot load this file: {' | '.join(lines[-3:])[-600:]}"
    )
