"""Runtimes: what writes a checkpoint as a bundle, and answers with it.

Importing this, or reading an onnx bundle, loads neither torch nor transformers: a device that only
answers does not need them.
"""

import logging
from pathlib import Path
from typing import Annotated

from limbeck.contracts.answerer import Answerer
from limbeck.contracts.config import NameIn, resolve
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.fields import Precision
from limbeck.contracts.registry import RUNTIMES
from limbeck.env.threads import NumThreads, choose_threads, count_free_cores
from limbeck.runtimes.base import Runtime
from limbeck.runtimes.bundle import BUNDLE, read_bundle
from limbeck.runtimes.greedy import NUM_SLOTS, GreedyAnswerer

logger = logging.getLogger(__name__)


def open_runtime(name: str) -> Runtime:
    """The runtime of this name.

    Raises:
        UnknownNameError: there is none.
    """
    return resolve(RUNTIMES, name, what="runtime")()


def find_runtime(folder: Path) -> str:
    """The name of the runtime that a bundle or a checkpoint folder is read by.

    Raises:
        CheckpointError: the folder is neither.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; make it with `limbeck run RECIPE`")
    is_bundle = (folder / BUNDLE).is_file()
    if not is_bundle and not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: has neither {BUNDLE} nor config.json; name a bundle or a checkpoint"
        )
    return read_bundle(folder).runtime if is_bundle else "transformers"


def open_answerer(
    folder: Path, *, num_threads: NumThreads, num_rows: int = 1, precision: Precision = "float32"
) -> Answerer:
    """The model in a bundle or a checkpoint folder, loaded and ready to answer.

    `auto` threads follow from the model's size, from the `num_rows` that are decoded at once, and
    from the free cores. `precision` is in what a checkpoint of floats computes.

    Raises:
        CheckpointError: the folder is neither, or is damaged, or computes as it was written.
        UnknownNameError: the bundle is for a runtime that is not known here.
    """
    runtime = open_runtime(find_runtime(folder))
    if precision != "float32":
        runtime = runtime.computing_in(precision, place=folder)
    if num_threads == "auto":
        num_threads = _choose_threads(folder, num_rows=num_rows)
    return runtime.read(folder, num_threads=num_threads)


def open_chat_model(folder: Path, *, num_threads: NumThreads, num_rows: int) -> GreedyAnswerer:
    """The model in a folder with its chat, for decoding by a session of one's own.

    Raises:
        CheckpointError: as `open_answerer`, or its runtime answers only whole prompts.
    """
    found = open_answerer(folder, num_threads=num_threads, num_rows=num_rows)
    if not isinstance(found, GreedyAnswerer):
        raise CheckpointError(
            f"{folder}: a {type(found).__name__} answers whole prompts, and cannot be decoded "
            "token by token; export the checkpoint for another runtime"
        )
    return found


def _choose_threads(folder: Path, *, num_rows: int) -> int:
    if (folder / BUNDLE).is_file():
        active_parameters = read_bundle(folder).active_parameters
    else:
        from limbeck.runtimes.transformers import count_active  # noqa: PLC0415  (torch)

        active_parameters = count_active(folder)
    choice = choose_threads(
        active_parameters=active_parameters,
        step_tokens=min(num_rows, NUM_SLOTS),
        num_free_cores=count_free_cores(),
    )
    logger.info("%s: %s", folder, choice)
    return choice.num_threads


RuntimeName = Annotated[str, NameIn(RUNTIMES, "runtime")]
"""A name of `limbeck list runtimes`."""
