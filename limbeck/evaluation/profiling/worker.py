"""The other side of `profile.py`: in a process of its own, one model that is timed and answers.

Left out: what is measured in which order, and what is reported.
"""

import gc
import importlib
import logging
import resource
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, final

from limbeck.contracts.answerer import Answerer, Apply, PromptLike, Size, as_prompt
from limbeck.contracts.child_process import ChildProcess
from limbeck.contracts.errors import PromptLengthError

STATUS = Path("/proc/self/status")
CLEAR_PEAK = Path("/proc/self/clear_refs")
POLL_SECONDS = 0.002

logger = logging.getLogger(__name__)

Opener = Callable[[], Answerer]
Found = TypeVar("Found")


def apply_in(process: ChildProcess) -> Apply:
    """Runs picklable functions on the model that a process with a `ModelWorker` has open."""

    def apply(function: Callable[[Answerer], Found]) -> Found:
        return process.call("apply", function=function)

    return apply


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


@dataclass(frozen=True)
class Rehearsal:
    """What has to be known before anything is timed."""

    modules: list[str]
    """Those that opening the models and answering once imports, in order."""
    questions: list[PromptLike]
    """Those that every model reads whole."""


@final
class ModelWorker:
    """The model under measurement; its methods are called from the other process."""

    def __init__(self) -> None:
        self.answerer: Answerer | None = None

    def list_modules(
        self, *, openers: Mapping[str, Opener], questions: list[PromptLike], max_new_tokens: int
    ) -> Rehearsal:
        """What opening the named models and answering once imports, and what all of them read.

        Raises:
            PromptLengthError: some model can read none of the questions.
        """
        readable = sorted(questions, key=lambda item: len(as_prompt(item).question))
        for name, opener in openers.items():
            answerer = opener()
            while not _reads(answerer, readable[-1], max_new_tokens=min(2, max_new_tokens)):
                readable.pop()
                if not readable:
                    raise PromptLengthError(
                        f"{name}: every question to be timed is longer than it reads; ask shorter "
                        "ones, or leave the model out"
                    )
            answerer.score("?", ["?"])
            answerer.size()
            del answerer
            gc.collect()
        modules = [name for name in sys.modules if not name.startswith("__")]
        return Rehearsal(modules, [item for item in questions if item in readable])

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

    def reopen(self, *, opener: Opener) -> None:
        """Open the model otherwise, measuring nothing."""
        self.answerer = None
        gc.collect()
        self.answerer = opener()

    def apply(self, *, function: Callable[[Answerer], Found]) -> Found:
        """What a function gives back that the open model is given to."""
        assert self.answerer is not None
        return function(self.answerer)

    def time(self, *, question: PromptLike, max_new_tokens: int) -> Timing:
        """The time of one answer at batch 1."""
        assert self.answerer is not None
        started = time.perf_counter()
        (answer,) = self.answerer.answer([question], max_new_tokens=max_new_tokens)
        return Timing(time.perf_counter() - started, answer.num_tokens)


def _reads(answerer: Answerer, question: PromptLike, *, max_new_tokens: int) -> bool:
    """Whether a question fits a model, which answers it then."""
    try:
        answerer.answer([question], max_new_tokens=max_new_tokens)
    except PromptLengthError:
        return False
    return True


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
