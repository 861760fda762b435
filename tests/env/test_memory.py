"""Freed memory goes back to the system, also in the many parts that an allocator keeps."""

import subprocess
import sys

import pytest

PROGRAM = """
import psutil
from limbeck.env.memory import release_memory

def used():
    return psutil.Process().memory_info().rss

before = used()
parts = [bytearray(100_000) for _ in range(3000)]
last = bytearray(100_000)
del parts
kept = used() - before
release_memory()
print(kept, used() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_was_freed_goes_back():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    kept, left = map(int, done.stdout.split())
    assert kept > 200e6
    assert left < 0.2 * kept
