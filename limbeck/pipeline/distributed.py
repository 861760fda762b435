"""Running stages with every process that a launcher has started.

The first process leads: it alone holds the lock, decides what is made or reused, writes artifacts,
and runs the stages that do not train. Before a stage that trains it calls the others, who run the
same stage beside it and write nothing that stays.
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from limbeck.contracts.artifacts import Work
from limbeck.contracts.config import resolve
from limbeck.contracts.errors import LaunchError
from limbeck.env.ranks import num_processes, process_index
from limbeck.pipeline.check import Entry


class Crew(ABC):
    """All processes of this run."""

    @abstractmethod
    def run(self, entry: Entry, work: Work) -> Mapping[str, Any]:
        """The metrics of a stage, which the leader has run, alone or with the others."""

    @abstractmethod
    def follow(self) -> None:
        """Join the stages that the leader calls for, until it closes the crew."""

    @abstractmethod
    def close(self) -> None:
        """Let the others go."""


def open_process_group(entries: Mapping[str, Entry]) -> Crew:
    """This process alone, or with those launched beside it.

    Raises:
        LaunchError: they cannot work together as they were launched.
    """
    if num_processes() == 1:
        return Alone()
    processes = resolve(
        {"processes": "limbeck.training.distributed.ranks"}, "processes", what="engine"
    )
    return Together(entries, processes)


class Alone(Crew):
    """One process."""

    def run(self, entry: Entry, work: Work) -> Mapping[str, Any]:
        """The stage's metrics."""
        return entry.module.run(entry.config, work=work)

    def follow(self) -> None:
        """Never called for: one process leads."""

    def close(self) -> None:
        """Nobody is to be let go."""


class Together(Crew):
    """Several processes; each message of the leader names a stage to join, the last one none."""

    def __init__(self, entries: Mapping[str, Entry], processes: ModuleType) -> None:
        self.entries = entries
        self.processes = processes
        self.accelerator = processes.open_accelerator()
        self.joined = False

    def run(self, entry: Entry, work: Work) -> Mapping[str, Any]:
        """The stage's metrics, when all who take part are done."""
        if entry.config.processes == "first":
            return entry.module.run(entry.config, work=work)
        self.processes.share(self.accelerator, (entry.name, work))
        self.joined = True
        metrics = entry.module.run(entry.config, work=work)
        self.accelerator.wait_for_everyone()
        self.joined = False
        return metrics

    def follow(self) -> None:
        """Join each stage; what it writes goes where nobody looks, and is gone afterwards."""
        while True:
            message = self.processes.share(self.accelerator, None)
            if message is None:
                self.accelerator.end_training()
                return
            name, work = message
            paths = [item.path for items in work.inputs.values() for item in items]
            for path in (work.state, *paths):
                if not Path(path).exists():
                    raise LaunchError(
                        f"process {process_index()} does not see {path}, where the first one "
                        "works; put --runs on a disk that all machines share"
                    )
            with tempfile.TemporaryDirectory(prefix="limbeck-") as folder:
                entry = self.entries[name]
                entry.module.run(entry.config, work=replace(work, folder=Path(folder)))
            self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Tell the others that the run is over; one that failed in their midst they know of."""
        if not self.joined:
            self.processes.share(self.accelerator, None)
            self.accelerator.end_training()
