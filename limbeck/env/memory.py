"""Memory that this process freed, given back to the system."""

import ctypes
import gc
import sys


def release_memory() -> None:
    """Collect what nothing refers to, and give freed memory back.

    glibc keeps what was freed in small parts, as a model's weights are, for what it may be asked
    later: a chain of ten entries held 14 GB that way, beside the models that answered for its
    report. Elsewhere than on Linux with glibc nothing but the collection is done.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
