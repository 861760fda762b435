"""Compiles a C++ source of this package for the machine at hand, once, and opens it.

The source needs neither torch nor Python: any C++17 compiler with OpenMP builds it in seconds.
What is made stands in the user's cache, under a key of the source, the flags and the processor.
Where there is no compiler, or building fails, that is logged and callers use their own PyTorch
path. `LIMBECK_NATIVE=0` in the environment switches compiled code off; `LIMBECK_CACHE` names
another folder for it.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from filelock import FileLock

logger = logging.getLogger(__name__)

FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC")
COMPILERS = ("c++", "g++", "clang++")
BUILD_SECONDS = 120
CHECK = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).limbeck_check())"


class BuildError(RuntimeError):
    """The library cannot be made here, for the reason in the message."""


@functools.cache
def open_library(*sources: str) -> ctypes.CDLL | None:
    """The library of these sources, the first of which is compiled; nothing where it cannot be."""
    if os.environ.get("LIMBECK_NATIVE", "1") == "0":
        return None
    try:
        return ctypes.CDLL(str(build([Path(__file__).with_name(name) for name in sources])))
    except (BuildError, OSError) as error:
        logger.warning("%s is not used, PyTorch is: %s", sources[0], error)
        return None


def build(sources: list[Path]) -> Path:
    """The compiled library in the cache, made now unless it is there.

    Raises:
        BuildError: there is no compiler, or it fails, or what it made computes wrongly.
    """
    compiler = _find_compiler()
    folder = _cache_folder()
    library = folder / f"{sources[0].stem}-{_key(sources, compiler)}.so"
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(library.with_suffix(".lock")):
        if not library.is_file():
            _compile(compiler, sources[0], library)
    return library


def _compile(compiler: str, source: Path, library: Path) -> None:
    """Make the library under another name, try it in a process of its own, then name it."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        _run([compiler, *FLAGS, str(source), "-o", str(made)], what="compiling")
        # A processor may claim instructions that it lacks, which would end this process.
        _run([sys.executable, "-I", "-c", CHECK, str(made)], what="trying what was compiled")
        made.replace(library)


def _run(command: list[str], *, what: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILD_SECONDS)
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines()[-5:]
        raise BuildError("\n".join([f"{what} failed, exit {error.returncode}", *lines])) from None
    except subprocess.TimeoutExpired:
        raise BuildError(f"{what} took more than {BUILD_SECONDS} s") from None


def _find_compiler() -> str:
    if sys.platform != "linux":
        raise BuildError(f"expected Linux, found {sys.platform}")
    for name in (os.environ.get("CXX", ""), *COMPILERS):
        path = shutil.which(name) if name else None
        if path is not None:
            return path
    raise BuildError(f"no C++ compiler; expected $CXX or one of {', '.join(COMPILERS)}")


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(os.environ.get("LIMBECK_CACHE") or Path(base) / "limbeck")


def _key(sources: list[Path], compiler: str) -> str:
    """Whatever changes the machine code: a shared home may serve several kinds of processors."""
    parts = [source.read_bytes() for source in sources]
    parts += [" ".join((compiler, *FLAGS, platform.machine())).encode()]
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        wanted = ("model name", "flags", "Features", "CPU part")
        parts += sorted({line.encode() for line in lines if line.startswith(wanted)})
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
