"""Runtimes: what writes a checkpoint as a bundle, and answers with it.

Importing this, or reading an onnx bundle, loads neither torch nor transformers: a device that only
answers does not need them.
"""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from limbeck.contracts.answerer import Answerer
from limbeck.contracts.config import resolve
from limbeck.contracts.errors import CheckpointError, UnknownNameError
from limbeck.contracts.registry import RUNTIMES
from limbeck.runtimes.base import Runtime
from limbeck.runtimes.bundle import BUNDLE, read_bundle


def open_runtime(name: str) -> Runtime:
    """The runtime of this name.

    Raises:
        UnknownNameError: there is none.
    """
    return resolve(RUNTIMES, name, what="runtime")()


def open_answerer(folder: Path, *, num_threads: int) -> Answerer:
    """The model in a bundle or a checkpoint folder, loaded and ready to answer.

    Raises:
        CheckpointError: the folder is neither, or is damaged.
        UnknownNameError: the bundle is for a runtime that is not known here.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; make it with `limbeck run RECIPE`")
    if (folder / BUNDLE).is_file():
        runtime = read_bundle(folder).runtime
    elif (folder / "config.json").is_file():
        runtime = "transformers"
    else:
        raise CheckpointError(
            f"{folder}: has neither {BUNDLE} nor config.json; name a bundle or a checkpoint"
        )
    return open_runtime(runtime).read(folder, num_threads=num_threads)


def _check_name(name: str) -> str:
    if name not in RUNTIMES:
        raise ValueError(str(UnknownNameError(name, known=RUNTIMES, what="runtime")))
    return name


RuntimeName = Annotated[str, AfterValidator(_check_name)]
"""A name of `limbeck list runtimes`."""
