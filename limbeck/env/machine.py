"""The machine and the installed packages, as measurements and manifests record them."""

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

CPU_INFO = Path("/proc/cpuinfo")


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


def describe_machine() -> dict[str, Any]:
    """Python, operating system, processor and memory."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
    }
