"""What runtimes do not write of a design, by the functions with which `check` refuses an export."""

import functools

from limbeck.contracts.config import resolve
from limbeck.contracts.errors import CheckpointError
from limbeck.contracts.registry import RUNTIMES
from limbeck.models.config import EXPORTED_HEAD_MULTIPLE
from limbeck.models.decoder_sizes import DecoderSizes, SizedConfig
from limbeck.runtimes.base import Runtime
from limbeck.runtimes.gguf.limits import CARRIED
from limbeck.sizing.file_formats import FileFormat

PLACE = "it"


def find_refusal(sizes: SizedConfig, file_format: FileFormat) -> str:
    """Why there is no file of such a model in a format; '' where there is one.

    What a config of transformers states is checked as `export` does. Of a described decoder a
    runtime refuses the width of its heads alone.
    """
    if file_format.runtime == "transformers":
        return ""
    if fault := _find_unknown(sizes.model_type, file_format):
        return fault
    if isinstance(sizes, DecoderSizes):
        multiple, width = EXPORTED_HEAD_MULTIPLE, sizes.head_dim
        return f"heads are {width} wide, no multiple of {multiple}" if width % multiple else ""
    # Slow to import, and imported already where there is a config of theirs.
    from limbeck.runtimes.architecture import describe_architecture

    runtime, weights = _open(file_format.runtime), file_format.weights
    name = weights if weights in runtime.formats else "float32"
    if file_format.runtime == "gguf" and weights in CARRIED["ternary"]:
        name = "ternary"  # to which the design would be trained
    try:
        found = describe_architecture(sizes, number_format=name, runtime=runtime, place=PLACE)
        if runtime.check_architecture is not None:
            chosen = weights if weights in runtime.weights else "format"
            runtime.check_architecture(found, number_format=name, weights=chosen, place=PLACE)
    except CheckpointError as error:
        return str(error).removeprefix(f"{PLACE}: ")
    return ""


@functools.cache
def _find_unknown(model_type: str, file_format: FileFormat) -> str:
    runtime = _open(file_format.runtime)
    known = runtime.architectures
    if known != "any" and model_type not in known:
        return f"there is no {runtime.name} file of architecture {model_type!r}"
    if file_format.weights not in (*runtime.weights, *runtime.formats):
        return f"no {runtime.name} file of {file_format.weights!r} is written"
    return ""


@functools.cache
def _open(name: str) -> Runtime:
    runtime: Runtime = resolve(RUNTIMES, name, what="runtime")()
    return runtime
