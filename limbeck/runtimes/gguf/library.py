"""llama.cpp's own C functions, from the library inside the package xllamacpp.

The package's Python side gives text and no logits, so the functions of `llama.h` are called. Two of
them take structures by value, whose layout changes between versions: their defaults are compared
with what this layout expects, and another layout is refused.
"""

import ctypes
import functools
import importlib.util
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck.contracts.errors import CheckpointError

PACKAGE = "xllamacpp"
TYPE_F32 = 0
FLASH_ATTENTION_OFF = 0
LOWEST_KEPT_LEVEL, CONTINUED = 3, 5
"""Of llama.cpp's log: 2 informs, 3 warns, 4 is an error, 5 continues the line before."""
NUM_LOG_LINES = 20


class ModelParams(ctypes.Structure):
    """`llama_model_params`, as far as it is set here."""

    _fields_ = (
        ("devices", ctypes.c_void_p),
        ("buffer_types", ctypes.c_void_p),
        ("num_gpu_layers", ctypes.c_int32),
        ("split_mode", ctypes.c_int32),
        ("unset", ctypes.c_uint8 * 48),
        ("vocab_only", ctypes.c_bool),
        ("more", ctypes.c_uint8 * 71),
    )


class ContextParams(ctypes.Structure):
    """`llama_context_params`, as far as it is set here."""

    _fields_ = (
        ("num_cells", ctypes.c_uint32),
        ("batch_tokens", ctypes.c_uint32),
        ("micro_batch_tokens", ctypes.c_uint32),
        ("num_sequences", ctypes.c_uint32),
        ("unset", ctypes.c_uint32 * 3),
        ("num_threads", ctypes.c_int32),
        ("num_batch_threads", ctypes.c_int32),
        ("context_type", ctypes.c_int32),
        ("kinds", ctypes.c_int32 * 3),
        ("flash_attention", ctypes.c_int32),
        ("rotary", ctypes.c_float * 2),
        ("yarn", ctypes.c_float * 4),
        ("callbacks", ctypes.c_uint8 * 24),
        ("key_type", ctypes.c_int32),
        ("value_type", ctypes.c_int32),
        ("more_callbacks", ctypes.c_uint8 * 24),
        ("bools", ctypes.c_bool * 5),
        ("is_unified", ctypes.c_bool),
        ("more", ctypes.c_uint8 * 66),
    )


class LlamaBatch(ctypes.Structure):
    """`llama_batch`."""

    _fields_ = (
        ("num_tokens", ctypes.c_int32),
        ("tokens", ctypes.POINTER(ctypes.c_int32)),
        ("embeddings", ctypes.POINTER(ctypes.c_float)),
        ("positions", ctypes.POINTER(ctypes.c_int32)),
        ("sequence_counts", ctypes.POINTER(ctypes.c_int32)),
        ("sequences", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("outputs", ctypes.POINTER(ctypes.c_int8)),
    )


POINTER, INT, BOOL, TEXT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool, ctypes.c_char_p
FLOATS, INTS = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int32)
LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "backend_init": (None, ()),
    "log_set": (None, (LogCallback, POINTER)),
    "model_default_params": (ModelParams, ()),
    "context_default_params": (ContextParams, ()),
    "model_load_from_file": (POINTER, (TEXT, ModelParams)),
    "model_free": (None, (POINTER,)),
    "model_get_vocab": (POINTER, (POINTER,)),
    "init_from_model": (POINTER, (POINTER, ContextParams)),
    "free": (None, (POINTER,)),
    "n_ctx": (ctypes.c_uint32, (POINTER,)),
    "n_batch": (ctypes.c_uint32, (POINTER,)),
    "n_seq_max": (ctypes.c_uint32, (POINTER,)),
    "n_threads": (INT, (POINTER,)),
    "get_memory": (POINTER, (POINTER,)),
    "memory_seq_rm": (BOOL, (POINTER, INT, INT, INT)),
    "decode": (INT, (POINTER, LlamaBatch)),
    "get_logits_ith": (FLOATS, (POINTER, INT)),
    "vocab_n_tokens": (INT, (POINTER,)),
    "vocab_is_eog": (BOOL, (POINTER, INT)),
    "tokenize": (INT, (POINTER, TEXT, INT, INTS, INT, BOOL, BOOL)),
}
"""Results and arguments, by the name without `llama_`."""
INT64 = ctypes.c_int64
GGML_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "quantize_chunk": (ctypes.c_size_t, (INT, FLOATS, POINTER, INT64, INT64, INT64, FLOATS)),
}
"""Those of ggml, by the name without `ggml_`."""


class Library:
    """The loaded library: each function of the table as an attribute, and what was logged."""

    def __init__(self, path: Path) -> None:
        self._dll = ctypes.CDLL(str(path))
        self._lines: deque[str] = deque(maxlen=NUM_LOG_LINES)
        self.lock = threading.Lock()
        """Held while a model is loaded, so that the log is that model's."""
        for prefix, functions in (("llama", FUNCTIONS), ("ggml", GGML_FUNCTIONS)):
            for name, (result, arguments) in functions.items():
                try:
                    function = self._dll[f"{prefix}_{name}"]
                except AttributeError:
                    raise _unknown_version(f"has no function {prefix}_{name}") from None
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)
        self._callback = LogCallback(self._log)
        self.call("log_set", self._callback, None)
        self.call("backend_init")
        self._check_layout()

    def call(self, name: str, *arguments: Any) -> Any:
        """The result of a function of the table."""
        return getattr(self, name)(*arguments)

    def take_log(self) -> str:
        """The latest warnings and errors, which are then forgotten."""
        text = "".join(self._lines).strip().replace("\n", " | ")
        self._lines.clear()
        return text

    def _log(self, level: int, text: bytes, _: object) -> None:
        if level == CONTINUED and self._lines:
            self._lines[-1] += text.decode("utf-8", "replace")
        elif LOWEST_KEPT_LEVEL <= level < CONTINUED:
            self._lines.append(text.decode("utf-8", "replace"))

    def _check_layout(self) -> None:
        model, context = self.call("model_default_params"), self.call("context_default_params")
        found = (
            *(model.num_gpu_layers, model.split_mode, model.vocab_only),
            *(context.num_cells, context.batch_tokens, context.micro_batch_tokens),
            *(context.num_sequences, context.num_threads, context.num_batch_threads),
            *(*context.kinds, context.flash_attention, context.key_type, context.value_type),
            *(*context.bools, context.is_unified),
        )
        expected = (-1, 1, False, 512, 2048, 512, 1, 4, 4, -1, -1, -1, -1, 1, 1)
        if found != (*expected, False, True, True, True, True, False):
            raise _unknown_version("describes its settings otherwise")


@functools.lru_cache(maxsize=1)
def open_library() -> Library:
    """llama.cpp, loaded once.

    Raises:
        CheckpointError: the package is missing, or of a version that is not known here.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise CheckpointError(
            f"answering from a GGUF file needs {PACKAGE}; install it with "
            "`pip install 'limbeck[gguf]'`"
        )
    found = sorted(Path(spec.origin).parent.glob("xllamacpp*.so"))
    if not found:
        raise _unknown_version("holds no library")
    return Library(found[0])


def make_array(kind: Any, values: Sequence[int]) -> Any:
    """Numbers as C takes them."""
    return (kind * len(values))(*values)


def _unknown_version(fault: str) -> CheckpointError:
    from importlib.metadata import version  # noqa: PLC0415  (an error's only)

    return CheckpointError(
        f"{PACKAGE} {version(PACKAGE)} {fault}; install the version that Limbeck was tested with: "
        "`pip install 'limbeck[gguf]' -c constraints.txt`"
    )
