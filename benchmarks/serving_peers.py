"""The servers that `serving.py` measures: how each is started, asked and measured.

A server that is not in its turn is suspended, so that it takes no processor time from another.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import psutil
from load import Job

HERE = Path(__file__).parent
ROOT = HERE.parent
START_SECONDS = 180.0
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Peer:
    """A server, and the model that it answers with."""

    name: str
    model: str
    """Rows of equal models are compared."""
    command: tuple[str, ...]
    """PORT, KEYS and JOURNAL are filled in."""
    model_field: str = "auto"
    """What a request calls the model."""
    has_keys: bool = False


@final
@dataclass
class RunningPeer:
    """A server that runs; leaving it ends its processes."""

    peer: Peer
    port: int = field(default_factory=lambda: find_port())
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="serving-")))
    headers: dict[str, str] = field(default_factory=dict)
    process: "psutil.Popen | None" = None

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            SystemExit: it ends, or does not answer in time.
        """
        keys = self.folder / "keys.json"
        if self.peer.has_keys:
            key = self._run_limbeck("keys", "bench", "--file", str(keys))
            self.headers = {"Authorization": f"Bearer {key.split()[-1]}"}
        filled = {
            "PORT": str(self.port),
            "KEYS": str(keys),
            "JOURNAL": str(self.folder / "journal.sqlite"),
        }
        command = [filled.get(word, word) for word in self.peer.command]
        log = (self.folder / "log").open("w")
        self.process = psutil.Popen(
            command, cwd=self.folder, env=_environment(), stdout=log, stderr=log
        )
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise SystemExit(f"{self.peer.name} does not start; see {self.folder / 'log'}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End its processes."""
        for process in self.processes():
            process.kill()

    def suspend(self) -> None:
        """Take it off the processor."""
        for process in self.processes():
            process.suspend()

    def resume(self) -> None:
        """Let it go on."""
        for process in self.processes():
            process.resume()

    def processes(self) -> list[psutil.Process]:
        """All of them, the first one first."""
        if self.process is None or not self.process.is_running():
            return []
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def cpu_seconds(self) -> tuple[float, float]:
        """User and system time of all its processes, and of the first alone."""
        found = [sum(process.cpu_times()[:2]) for process in self.processes()]
        return sum(found), found[0]

    def memory_bytes(self) -> int:
        """What all its processes hold."""
        return sum(process.memory_info().rss for process in self.processes())

    def job(self, bodies: list[str], **settings: float | int | str) -> Job:
        """A job that asks it."""
        url = f"http://127.0.0.1:{self.port}{PATH}"
        return Job(url, bodies, headers=self.headers, **settings)  # pyright: ignore[reportArgumentType]

    def _answers(self) -> bool:
        for path in ("/healthz/ready", "/health"):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5):
                    return True
            except urllib.error.HTTPError:
                continue
            except OSError:
                return False
        return False

    def _run_limbeck(self, *words: str) -> str:
        command = [sys.executable, "-m", "limbeck.cli", *words]
        done = subprocess.run(command, env=_environment(), stdout=subprocess.PIPE, check=True)
        return done.stdout.decode()


def find_port() -> int:
    """One that nobody listens at: another server's answers would be taken for this one's."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _environment() -> dict[str, str]:
    # torch's threads and tokenizers' own would be counted against whoever has them.
    return {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}


def own_server(bundle: Path, *, model: str, root: Path = ROOT) -> Peer:
    """The service with keys, rules, journal and metrics on."""
    command = ("-m", "limbeck.cli", "serve", str(bundle.resolve()), "--port", "PORT")
    options = ("--keys", "KEYS", "--journal", "JOURNAL")
    return Peer(_name(root), model, (*_python(root), *command, *options), has_keys=True)


def own_without_model(bundle: Path, *answers: str, root: Path = ROOT) -> Peer:
    """The same, with a process in the model's place that answers at once."""
    script = str(root / "benchmarks" / "servers" / "without_model.py")
    command = (*_python(root), script, str(bundle.resolve()), "PORT", "KEYS", "JOURNAL", *answers)
    return Peer(_name(root), "none", command, has_keys=True)


def _name(root: Path) -> str:
    return "limbeck" if root == ROOT else "limbeck before"


def _python(root: Path) -> tuple[str, ...]:
    return "env", f"PYTHONPATH={root}", sys.executable


def litserve(python: Path, bundle: Path | None, *, model: str, num_tokens: int) -> Peer:
    """LitServe before our runtime, or before nothing."""
    script = str(HERE / "servers" / "litserve_server.py")
    what = str(bundle.resolve()) if bundle else "none"
    return Peer("LitServe", model, (str(python), script, what, "PORT", str(num_tokens)))


def llama_cpp(python: Path, gguf: Path, *, model: str) -> Peer:
    """llama.cpp's own server."""
    script = str(HERE / "servers" / "llama_cpp_server.py")
    return Peer("llama.cpp", model, (str(python), script, str(gguf.resolve()), "PORT"))


def transformers_serve(python: Path, checkpoint: Path, *, model: str) -> Peer:
    """`transformers serve`, with continuous batching."""
    path = str(checkpoint.resolve())
    words = ("serve", path, "--device", "cpu", "--port", "PORT", "--continuous-batching")
    command = (str(python), "-m", "transformers.cli.transformers", *words)
    return Peer("transformers serve", model, command, model_field=path)
