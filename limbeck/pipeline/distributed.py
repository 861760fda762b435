"""Running stages with every process that a launcher has started.

Rank 0 decides what is made or reused, writes artifacts, and runs the stages that do not train. It
broadcasts each stage that trains; the other ranks run it too, and write nothing that stays.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.contracts.artifacts import Work, ignore_step
from limbeck.contracts.errors import LaunchError
from limbeck.env.memory import release_memory
from limbeck.env.ranks import num_processes, process_index
from limbeck.pipeline.entry import Entry

RunStage = Callable[[Entry, Work], Mapping[str, Any]]
"""Runs a stage on every rank that takes part, and gives back its metrics."""


def run_alone(entry: Entry, work: Work) -> Mapping[str, Any]:
    """The metrics of a stage that this process has run.

    A stage whose model answers sets torch's threads for that; the next one finds them as they were,
    and the memory that this one needed.
    """
    import torch

    num_threads = torch.get_num_threads()
    try:
        return entry.config.run(work=work)
    finally:
        torch.set_num_threads(num_threads)
        release_memory()


@contextmanager
def lead_workers() -> Iterator[RunStage]:
    """On rank 0: what runs a stage with the other ranks, which are let go at the end.

    Raises:
        LaunchError: the processes cannot work together as they were launched.
    """
    if num_processes() == 1:
        yield run_alone
        return
    from limbeck.training.distributed import ranks

    accelerator = ranks.open_accelerator()
    in_stage = False

    def run_stage(entry: Entry, work: Work) -> Mapping[str, Any]:
        nonlocal in_stage
        if entry.config.processes == "first":
            return run_alone(entry, work)
        ranks.broadcast_from_rank0(accelerator, (entry.name, replace(work, on_step=ignore_step)))
        in_stage = True
        metrics = run_alone(entry, work)
        accelerator.wait_for_everyone()
        in_stage = False
        return metrics

    try:
        yield run_stage
    finally:
        if not in_stage:  # else the stage has failed on the others too, and none listens
            ranks.broadcast_from_rank0(accelerator, None)
            accelerator.end_training()


def run_worker(entries: Mapping[str, Entry]) -> None:
    """On ranks > 0: run each stage that rank 0 broadcasts; drop what it writes.

    Raises:
        LaunchError: the processes cannot work together as they were launched.
    """
    from limbeck.training.distributed import ranks

    accelerator = ranks.open_accelerator()

    def receive(message: tuple[str, Work] | None = None) -> tuple[str, Work] | None:
        return ranks.broadcast_from_rank0(accelerator, message)

    while (message := receive()) is not None:
        name, work = message
        _check_visible(work)
        with tempfile.TemporaryDirectory(prefix="limbeck-") as folder:
            run_alone(entries[name], replace(work, folder=Path(folder)))
        accelerator.wait_for_everyone()
    accelerator.end_training()


def _check_visible(work: Work) -> None:
    """Raises: LaunchError: rank 0's folders are not on this machine."""
    for path in (work.state, *(item.path for items in work.inputs.values() for item in items)):
        if not path.exists():
            raise LaunchError(
                f"process {process_index()} does not see {path}, where the first one works; put "
                "--runs on a disk that all machines share"
            )
