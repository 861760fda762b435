"""Time and memory of answering, each model in a fresh process of its own, all interleaved.

One process a model is spawned, imports every library first, notes its resident memory, then opens
the model. Questions go round the processes one at a time, so that a busy neighbour slows all
alike; ratios of times come from that one run. The processes answer the other questions afterwards.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated, final

import numpy as np
from jaxtyping import Float
from pydantic import Field

from limbeck.contracts.answerer import Answerer, Apply, PromptLike
from limbeck.contracts.child_process import ChildProcess, spawn
from limbeck.contracts.config import Config
from limbeck.contracts.fields import PositiveFloat, PositiveInt
from limbeck.env.progress import track
from limbeck.env.threads import (
    LoadRange,
    ThreadChoice,
    choose_threads,
    count_free_cores,
    load_average,
)
from limbeck.evaluation.metrics import percentile
from limbeck.evaluation.profiling.worker import ModelWorker, Opened, Timing, apply_in

logger = logging.getLogger(__name__)


class ProfileConfig(Config):
    """How much is timed."""

    questions: PositiveInt = 8
    """Different questions, each answered once to warm up before it is timed."""
    rounds: PositiveInt = 3
    """Times that every model answers every question, at each number of threads."""
    budget_seconds: PositiveFloat = 30.0
    """After so long no further round starts, at each number of threads; one is always taken."""
    thread_counts: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2)
    """CPU threads; the first is the one of `latency_seconds` and of the speed ratios."""


@dataclass(frozen=True)
class Latency:
    """Seconds an answer (median and 95th percentile), and tokens a second."""

    p50: float
    p95: float
    tokens_per_second: float
    tokens_per_answer: float
    answers: int


@dataclass(frozen=True)
class Profile:
    """One model's size, memory and answer times."""

    opened: Opened
    timings: Mapping[int, tuple[Timing, ...]]
    """Number of threads to every answer timed, in the same order for every model."""
    load_by_threads: Mapping[int, LoadRange]
    """Number of threads to the machine's load around the answers timed with them."""
    default_threads: ThreadChoice
    """The threads that answering a single question chooses by itself."""

    def seconds(self, num_threads: int) -> Float[np.ndarray, " answers"]:
        """Of every answer timed with so many threads."""
        return np.array([timing.seconds for timing in self.timings[num_threads]])

    def latency(self, num_threads: int) -> Latency:
        """How long answers took with so many threads."""
        timings = self.timings[num_threads]
        seconds = [timing.seconds for timing in timings]
        num_tokens = sum(timing.num_tokens for timing in timings)
        return Latency(
            p50=percentile(seconds, 0.5),
            p95=percentile(seconds, 0.95),
            tokens_per_second=num_tokens / sum(seconds),
            tokens_per_answer=num_tokens / len(timings),
            answers=len(timings),
        )


Openers = Mapping[int, Callable[[], Answerer]]
"""Number of threads to what opens the model with them: picklable, for a fresh process calls it."""


@final
class ModelProcesses:
    """Named models, each in a process of its own: timed there, and asked."""

    def __init__(
        self,
        processes: Mapping[str, ChildProcess],
        openers: Mapping[str, Openers],
        *,
        ready: Future[list[PromptLike]],
        config: ProfileConfig,
        max_new_tokens: int,
    ) -> None:
        self._processes = processes
        self._openers = openers
        self._ready = ready
        self._config = config
        self._max_new_tokens = max_new_tokens

    def measure(self) -> dict[str, Profile]:
        """Size, memory and answer times of every model, by its name.

        Raises:
            CheckpointError: a model cannot be opened, or its process died.
        """
        first, *_ = self._config.thread_counts
        questions = self._ready.result()
        per_count = 1 + self._config.rounds * len(questions)
        steps = 1 + len(self._openers) * (1 + len(self._config.thread_counts) * per_count)
        opened: dict[str, Opened] = {}
        timings: dict[str, dict[int, tuple[Timing, ...]]] = {name: {} for name in self._openers}
        loads: dict[int, LoadRange] = {}
        num_free_cores = count_free_cores()
        with track("profile", total=steps, unit="step") as advance:
            advance(1, "libraries found")
            for process in self._processes.values():
                process.receive()
                advance(1, "libraries imported")
            for num_threads in self._config.thread_counts:
                for name, process in self._processes.items():
                    found = process.call(
                        "open",
                        opener=self._openers[name][num_threads],
                        max_new_tokens=self._max_new_tokens,
                        questions=questions if num_threads == first else questions[:1],
                    )
                    opened.setdefault(name, found)
                    advance(1, f"{name} opened")
                before = load_average()
                taken = _take_rounds(
                    self._processes,
                    questions=questions,
                    config=self._config,
                    max_new_tokens=self._max_new_tokens,
                    advance=lambda num, count=num_threads: advance(num, f"{count} threads"),
                )
                loads[num_threads] = LoadRange(before, load_average())
                for name, values in taken.items():
                    timings[name][num_threads] = tuple(values)
        return {
            name: Profile(
                found,
                timings[name],
                load_by_threads=loads,
                default_threads=choose_threads(
                    active_parameters=found.size.active_parameters,
                    step_tokens=1,
                    num_free_cores=num_free_cores,
                ),
            )
            for name, found in opened.items()
        }

    def open(self, name: str, opener: Callable[[], Answerer]) -> Apply:
        """Open a model in its process; what comes back runs functions there.

        To be called after `measure`, which would find less memory to take otherwise.
        """
        self._processes[name].call("reopen", opener=opener)
        return apply_in(self._processes[name])


@contextmanager
def profiling(
    openers: Mapping[str, Openers],
    *,
    questions: Sequence[PromptLike],
    config: ProfileConfig,
    max_new_tokens: int,
) -> Iterator[ModelProcesses]:
    """A process for every named model; they import their libraries beside the caller's own work."""
    timed = list(questions[: config.questions])
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        finder = stack.enter_context(spawn("libraries", ModelWorker))
        processes = {name: stack.enter_context(spawn(name, ModelWorker)) for name in openers}
        ready = pool.submit(
            _import_everywhere,
            processes,
            finder=finder,
            questions=timed,
            openers={name: found[config.thread_counts[0]] for name, found in openers.items()},
            max_new_tokens=max_new_tokens,
        )
        yield ModelProcesses(
            processes,
            openers,
            ready=ready,
            config=config,
            max_new_tokens=max_new_tokens,
        )
        # All at once: to end by itself takes each of them a second.
        for process in (finder, *processes.values()):
            process.connection.close()


def _import_everywhere(
    processes: Mapping[str, ChildProcess],
    *,
    finder: ChildProcess,
    openers: Mapping[str, Callable[[], Answerer]],
    questions: list[PromptLike],
    max_new_tokens: int,
) -> list[PromptLike]:
    """Have every process import what opening the models and answering once imports.

    Returns the questions that every model reads.

    It has to be imported before memory is noted: libraries import lazily at the first answer, and
    their code, larger than a small model, would count as the model's.
    """
    found = finder.call(
        "list_modules", openers=openers, questions=questions, max_new_tokens=max_new_tokens
    )
    finder.connection.close()  # which ends it
    for process in processes.values():
        process.send("import_modules", names=found.modules)
    if len(found.questions) < len(questions):
        logger.warning(
            "profile: %d of %d questions are longer than a model reads, and not timed",
            len(questions) - len(found.questions),
            len(questions),
        )
    return found.questions


def _take_rounds(
    processes: Mapping[str, ChildProcess],
    *,
    questions: Sequence[PromptLike],
    config: ProfileConfig,
    max_new_tokens: int,
    advance: Callable[[int], None],
) -> dict[str, list[Timing]]:
    """Every model's answer times: question by question, each model in turn."""
    taken: dict[str, list[Timing]] = {name: [] for name in processes}
    started = time.monotonic()
    for index in range(config.rounds):
        if index and time.monotonic() - started > config.budget_seconds:
            logger.warning(
                "profile: %d of %d rounds in %.0f s; raise budget_seconds for more",
                index,
                config.rounds,
                config.budget_seconds,
            )
            advance((config.rounds - index) * len(questions) * len(processes))
            break
        for question in questions:
            for name, process in processes.items():
                timing = process.call("time", question=question, max_new_tokens=max_new_tokens)
                taken[name].append(timing)
                advance(1)
    return taken
