"""The machine and the installed packages, as measurements and manifests record them."""

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Machine:
    """Python, operating system, processor and memory."""

    python: str
    system: str
    cpu: str
    cpu_count: int
    memory_bytes: int


def package_versions(names: Iterable[str], *, absent: str) -> dict[str, str]:
    """The version of each distribution; `absent` for one that is not installed."""
    return {name: _version(name, absent=absent) for name in names}


def _version(name: str, *, absent: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return absent


def cpu_name() -> str:
    """The processor's model name, or its architecture where the system gives no name."""
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu_name(),
        cpu_count=os.cpu_count() or 0,
        memory_bytes=psutil.virtual_memory().total,
    )
