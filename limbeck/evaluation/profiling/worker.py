"""The other side of `profiling.py`: a fresh process that opens one model and times what it is sent.

It imports no torch by itself, so that the environment it sets is read by every library. Left out:
what is measured in which order, and what is reported.
"""

import gc
import importlib
import logging
import os
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from limbeck.contracts.answerer import Answerer, PromptLike, Size, as_prompt
from limbeck.contracts.errors import LimbeckError

STATUS = Path("/proc/self/status")
CLEAR_PEAK = Path("/proc/self/clear_refs")
POLL_SECONDS = 0.002
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""Idle threads sleep, so that a waiting model takes nothing from the one being timed."""

logger = logging.getLogger(__name__)

Opener = Callable[[], Answerer]


@dataclass(frozen=True)
class Timing:
    """One answer: how long it took, and how many tokens it has."""

    seconds: float
    num_tokens: int


@dataclass(frozen=True)
class Opened:
    """What opening a model and answering every question once took."""

    size: Size
    base_memory_bytes: int
    """Resident memory with every library imported, before the model is opened."""
    peak_memory_bytes: int
    """High-water mark of resident memory while opening and answering, minus the base."""
    memory_method: str


def serve(connection: Connection) -> None:
    """Obey `(command, arguments)` messages until the other end closes.

    Replies are `("ok", value)`, `("error", message)` for what a user can mend, and `("bug", text)`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(ENVIRONMENT)
    logging.disable(logging.INFO)
    worker = _Worker()
    while True:
        try:
            command, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            reply = ("ok", getattr(worker, command)(**arguments))
        except LimbeckError as error:
            reply = ("error", str(error))
        except Exception:
            reply = ("bug", traceback.format_exc())
        try:
            connection.send(reply)
        except OSError:
            return


class _Worker:
    """The model under measurement, and the commands that a message can name."""

    def __init__(self) -> None:
        self.answerer: Answerer | None = None

    def list_modules(
        self, *, openers: list[Opener], question: PromptLike, max_new_tokens: int
    ) -> list[str]:
        """Every module that opening the models and answering once imports, in order."""
        for opener in openers:
            answerer = opener()
            answerer.answer([question], max_new_tokens=min(2, max_new_tokens))
            answerer.score(question, [as_prompt(question).question])
            answerer.size()
            del answerer
            gc.collect()
        return [name for name in sys.modules if not name.startswith("__")]

    def import_modules(self, *, names: list[str]) -> None:
        """Import what can be imported by name; some modules only look like modules."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                try:
                    importlib.import_module(name)
                except Exception as error:
                    logger.debug("not imported before the measurement: %s (%s)", name, error)

    def open(self, *, opener: Opener, questions: list[PromptLike], max_new_tokens: int) -> Opened:
        """Open the model, answer every question once, and say what that took of memory."""
        self.answerer = None
        gc.collect()
        peak = _Peak()
        self.answerer = opener()
        for question in questions:
            self.answerer.answer([question], max_new_tokens=max_new_tokens)
        used = max(peak.stop() - peak.base_bytes, 0)
        return Opened(self.answerer.size(), peak.base_bytes, used, peak.method)

    def time(self, *, question: PromptLike, max_new_tokens: int) -> Timing:
        """The time of one answer at batch 1."""
        assert self.answerer is not None
        started = time.perf_counter()
        (answer,) = self.answerer.answer([question], max_new_tokens=max_new_tokens)
        return Timing(time.perf_counter() - started, answer.num_tokens)


class _Peak:
    """High-water mark of this process's resident memory from now on.

    Linux keeps the mark (`VmHWM`) and lets a process reset it; elsewhere a thread looks every two
    milliseconds, which may miss a short peak.
    """

    def __init__(self) -> None:
        self.method = "VmHWM, reset before opening" if _reset_mark() else "sampled"
        self.base_bytes = _resident_bytes()
        self._highest = self.base_bytes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        if self.method == "sampled":
            self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            self._highest = max(self._highest, _resident_bytes())

    def stop(self) -> int:
        """The mark in bytes."""
        if self.method == "sampled":
            self._ended.set()
            self._thread.join()
            return self._highest
        return _read_status("VmHWM")


def _reset_mark() -> bool:
    try:
        CLEAR_PEAK.write_text("5")
        return _read_status("VmHWM") > 0
    except OSError:
        return False


def _read_status(field: str) -> int:
    """A field of the kernel's account of this process, in bytes; 0 when it is not kept."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _resident_bytes() -> int:
    if STATUS.is_file():
        return _read_status("VmRSS")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
