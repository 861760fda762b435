"""What answers questions from a folder: a checkpoint in transformers, or a bundle in its runtime.

Importing this, or reading an onnx bundle, loads neither torch nor transformers: a device that only
answers does not need them.
"""

from pathlib import Path

from limbeck.contracts.answerer import Answerer
from limbeck.contracts.config import resolve
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.registry import RUNTIMES
from limbeck.runtimes.bundle import BUNDLE, read_bundle


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
    return resolve(RUNTIMES, runtime, what="runtime").read(folder, num_threads=num_threads)
