"""The tiny recipe, made once for every test that reads its artifacts, and what runs it."""

import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from filelock import FileLock

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "tests" / "tiny.yaml"
ENTRIES = tuple(yaml.safe_load(RECIPE.read_text(encoding="utf-8")))
LONGEST_RUN_SECONDS = 500


FOLDER = "LIMBECK_TESTS_FOLDER"
"""The environment variable that names the folder of a test run to its workers."""


@contextmanager
def make_folder() -> Iterator[None]:
    """One folder for the whole test run and all its workers, removed at its end."""
    with tempfile.TemporaryDirectory(prefix="limbeck-tests-", ignore_cleanup_errors=True) as found:
        os.environ[FOLDER] = found
        yield


def folder() -> Path:
    """The folder of this test run."""
    return Path(os.environ[FOLDER])


class Warm:
    """Runs commands in real processes that need not import anything (`forkserver.py`)."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        """The server that this worker started; another's, and it is none."""
        path = folder() / "forkserver"
        self.connection = socket.socket(socket.AF_UNIX)
        with FileLock(folder() / "forkserver.lock"):
            try:
                self.connection.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                self.process = self._start_server(path)
                self.connection.connect(str(path))
        self.lines = self.connection.makefile("rw", encoding="utf-8")

    def _start_server(self, path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, Path(__file__).parent / "forkserver.py", path],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def _ask(self, **command: object) -> int | None:
        self.lines.write(json.dumps(command) + "\n")
        self.lines.flush()
        return json.loads(self.lines.readline())

    def start(self, *arguments: object, output: Path, call: str = "") -> int:
        """The number of a process, and of its group, that runs a command, or calls a function."""
        words = list(map(str, arguments))
        number = self._ask(arguments=words, output=str(output), call=call)
        assert number is not None
        return number

    def wait(self, number: int, *, seconds: float = LONGEST_RUN_SECONDS) -> int | None:
        """The exit code of a process, or nothing when it still runs."""
        return self._ask(wait=number, seconds=seconds)

    def call(self, function: str, *arguments: object, output: Path) -> str:
        """What a function `MODULE:NAME` wrote, called in a process of its own."""
        code = self.wait(self.start(*arguments, output=output, call=function))
        found = output.read_text()
        assert code == 0, found
        return found

    def stop(self) -> None:
        self.lines.close()
        self.connection.close()
        if self.process is not None:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()
            self.process.wait(60)
            self.process.stdout.close()


@functools.cache
def warm() -> Warm:
    found = Warm()
    atexit.register(found.stop)
    return found


@functools.cache
def runs() -> Path:
    """The runs folder with the finished tiny recipe; copy it before changing anything.

    The first worker that asks makes it; others wait for it.
    """
    output, finished = folder() / "chain.log", folder() / "chain.finished"
    with FileLock(folder() / "chain.lock"):
        if not finished.exists():
            number = warm().start("run", RECIPE, "--runs", folder() / "runs", output=output)
            assert warm().wait(number) == 0, output.read_text()
            finished.touch()
    return folder() / "runs"


def copy_runs(target: Path, *, entries: tuple[str, ...] = ENTRIES) -> Path:
    """A runs folder with copies of some finished entries."""
    for name in entries:
        shutil.copytree(runs() / "tiny" / name, target / "tiny" / name)
    return target


def kill(number: int) -> bool:
    """End a process of `Warm` and all that it started, at once; False if it had just finished."""
    os.killpg(number, signal.SIGKILL)
    code = warm().wait(number)
    assert code in (-signal.SIGKILL, 0)
    return code != 0


def write_part(folder: Path, *entries: str) -> Path:
    """A recipe of the same name with some of the entries."""
    whole = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({name: whole[name] for name in entries}, allow_unicode=True))
    return path


def content_hashes(runs: Path) -> dict[str, str]:
    """Each finished entry's content hash."""
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))["content_hash"]
        for path in sorted((runs / "tiny").glob("*/manifest.json"))
    }
