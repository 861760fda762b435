"""The medical pack, read once in a process: no test changes it."""

import functools

from limbeck.data.packs.load import load_pack
from limbeck.data.packs.schema import Pack


@functools.cache
def medical_pack() -> Pack:
    return load_pack("medical")
