"""What this machine computes, measured: the rate of large float32 matrix products.

Numpy measures a CPU as well as torch does, and torch takes seconds to import. Left out: cards,
whose figures are published.
"""

import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from threadpoolctl import ThreadpoolController

DEVICES = Path("/dev")
GPU_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")
"""Files of NVIDIA's and AMD's drivers, and of either under Windows."""
SIDE = 1024
"""Of the square matrices that are multiplied."""


@dataclass(frozen=True)
class Speed:
    """What this machine computes per second in large float32 matrix products."""

    flops_per_second: float
    device: str
    num_threads: int


def measure_speed(*, seconds: float = 0.15) -> Speed:
    """The best rate of 1024 x 1024 float32 products within the given time, on a GPU if there is.

    Numpy multiplies on a CPU, unless torch is imported already or numpy's BLAS is none whose
    threads can be counted.
    """
    blas = ThreadpoolController().select(user_api="blas")
    if "torch" in sys.modules or has_gpu() or len(blas.lib_controllers) != 1:
        return measure_with_torch(seconds=seconds)
    with blas.limit(limits=count_threads()):
        found = blas.info()[0]["num_threads"]
        return Speed(measure_with_numpy(seconds=seconds), "cpu", found)


def has_gpu() -> bool:
    """Whether there may be a GPU that torch can use, found out without importing torch."""
    if any(True for name in GPU_DEVICES for _ in DEVICES.glob(name)):
        return True
    return shutil.which("nvidia-smi") is not None


def count_threads() -> int:
    """Threads that torch would multiply with: what the environment sets, or one for each core.

    Numpy's BLAS by itself takes one for each hardware thread, of which a core may have two.
    """
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        # A list is of nested levels.
        stated = os.environ.get(name, "").partition(",")[0].strip()
        if stated.isdecimal() and int(stated):
            return int(stated)
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def measure_with_numpy(*, seconds: float) -> float:
    """Operations a second on the CPU, with as many threads as numpy's BLAS has."""
    left, right = np.random.default_rng(0).standard_normal((2, SIDE, SIDE), dtype=np.float32)
    product = left @ right
    return _best_rate(lambda: np.matmul(left, right, out=product), seconds=seconds)


def measure_with_torch(*, seconds: float) -> Speed:
    """The rate on the device that torch would train on."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    left, right = torch.randn(2, SIDE, SIDE, device=device)
    product = left @ right

    def multiply() -> object:
        torch.matmul(left, right, out=product)
        return float(product[0, 0])  # waits for the device

    return Speed(_best_rate(multiply, seconds=seconds), str(device), torch.get_num_threads())


def _best_rate(multiply: Callable[[], object], *, seconds: float) -> float:
    best = math.inf
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best
