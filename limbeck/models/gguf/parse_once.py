"""Transformers parses the header of a GGUF file once, where it would do so for every part of it.

The tokenizer, the architecture and the weights each take a pass over the whole vocabulary, and
each module of a model asks for the same table of names: half a minute of a small model's loading.
"""

import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def parse_once() -> Iterator[None]:
    """Within it, the `gguf` package gives the same reader of a file and table of names again."""
    try:
        gguf: Any = importlib.import_module("gguf")
    except ImportError:  # transformers says so
        yield
        return
    reader, name_map = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = functools.cache(reader), functools.cache(name_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, name_map
