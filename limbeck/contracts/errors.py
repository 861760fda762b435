"""Every error Limbeck raises on purpose.

    LimbeckError
    |-- RecipeError (ValueError)             a recipe or an override is wrong: every fault at once
    |-- UnknownNameError (LookupError)       a name stands in no table
    |-- DataError (ValueError)               a source file or a record is wrong
    |   |-- ColumnsError                     a file's columns are not those that are looked for
    |   |-- PromptLengthError                a model cannot read so long a prompt
    |   |-- ImageError                       an image cannot be read
    |   `-- LeakError                        training and evaluation share a question
    |-- ArtifactError (ValueError)           a folder is not the artifact that was expected
    |   `-- CheckpointError                  a model folder cannot be read or does not fit
    |-- TrainingError (ArithmeticError)      training diverged
    |-- LaunchError (RuntimeError)           launched processes cannot work together as asked
    |-- EndpointError (RuntimeError)         a model behind a server cannot be used as configured
    |-- TuningError (RuntimeError)           a search has no trial that could be used
    |-- JournalError (RuntimeError)          the journal of a service cannot be opened or read
    |-- ServingError (RuntimeError)          a service cannot answer, or not be opened as asked
    |   |-- QueueFullError                   as many requests wait as may
    |   |   `-- BudgetError                  a tier has had what it may have in a minute
    |   |-- EngineDownError                  a model's process or server is down or broke off
    |   |   |-- SlowTierError                a tier took longer than it may
    |   |   `-- CircuitOpenError             a tier has failed again and again, and is left alone
    |   |-- NoTierError                      every tier that could answer is down or full
    |   |-- RefusedError                     a model cannot answer a request
    |   `-- OpenAddressError                 others could reach a service that asks for no key
    |-- ParityError (ArithmeticError)        an exported or converted model answers differently
    `-- BusyError (RuntimeError)             another process works in the same folder

A message states what was found, what was expected and what to do. Left out: errors that only a
bug can cause; those stay assertions.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override


class LimbeckError(Exception):
    """Base of every error that a user can cause and can mend."""

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        # Its constructor takes what the message is made of; another process gets the message.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(cls: type[LimbeckError], args: tuple[Any, ...], state: dict[str, Any]) -> LimbeckError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a file: where, and what to do about it."""

    where: str
    message: str
    line: int = 0

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.where}: {self.message}"


class RecipeError(LimbeckError, ValueError):
    """A recipe cannot be run; `faults` holds every reason found."""

    def __init__(self, path: Path | str, faults: Iterable[Fault]) -> None:
        self.path = str(path)
        self.faults = tuple(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        count = len(self.faults)
        super().__init__(f"{self.path}: {count} fault{'s' if count != 1 else ''}\n{lines}")


class UnknownNameError(LimbeckError, LookupError):
    """A name that stands in no table, with the nearest known one."""

    def __init__(self, name: str, *, known: Iterable[str], what: str) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {what} {name!r}: {hint}known: {', '.join(known) or 'none'}")


class DataError(LimbeckError, ValueError):
    """A source cannot be read as what it claims to be."""

    def __init__(self, message: str, *, path: Path | str = "", line: int = 0) -> None:
        self.path = str(path)
        self.line = line
        place = f"{path}:{line}: " if line else (f"{path}: " if path else "")
        super().__init__(place + message)


class ColumnsError(DataError):
    """A file's columns are not those that are looked for; `found` are its own."""

    def __init__(self, message: str, *, found: Sequence[str], path: Path | str, line: int = 0):
        self.found = tuple(found)
        super().__init__(message, path=path, line=line)


class PromptLengthError(DataError):
    """A prompt has more tokens than the model reads, or none."""


class ImageError(DataError):
    """An image cannot be read; `reason` is what the data card counts it under."""

    def __init__(self, message: str, *, reason: str, path: Path | str = "") -> None:
        self.reason = reason
        super().__init__(message, path=path)


class LeakError(DataError):
    """A question stands in training and in evaluation."""


class ArtifactError(LimbeckError, ValueError):
    """A folder is missing, damaged, or of another kind than expected."""


class CheckpointError(ArtifactError):
    """A model folder cannot be loaded, or does not fit what it is used for."""


class TrainingError(LimbeckError, ArithmeticError):
    """Training produced numbers that cannot be trained on."""


class LaunchError(LimbeckError, RuntimeError):
    """Processes cannot work together as they were launched, or a stage not in such a way."""


class EndpointError(LimbeckError, RuntimeError):
    """A model behind a server cannot be reached, refuses, or would cost more than is allowed."""


class TuningError(LimbeckError, RuntimeError):
    """A search cannot score its trials, or none gave a model that can be used."""


class JournalError(LimbeckError, RuntimeError):
    """The journal of a service is missing, cannot be reached, or is not one."""


class ServingError(LimbeckError, RuntimeError):
    """A service cannot answer a request, or cannot be opened as it was asked to."""


class QueueFullError(ServingError):
    """As many requests wait as may; `retry_seconds`: when another attempt may have a place."""

    def __init__(self, message: str, *, retry_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class BudgetError(QueueFullError):
    """A tier has had as many requests or tokens as it may have in a minute."""


class EngineDownError(ServingError):
    """The model's process or server died, was stopped, broke off, or cannot open the model."""


class SlowTierError(EngineDownError):
    """A tier took longer than it may."""


class CircuitOpenError(EngineDownError):
    """A tier has failed again and again; `retry_seconds`: when it is tried again."""

    def __init__(self, message: str, *, retry_seconds: float) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class NoTierError(ServingError):
    """Every tier that could answer is down, or has a full queue."""

    def __init__(self, message: str, *, is_full: bool, retry_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.is_full = is_full
        self.retry_seconds = retry_seconds


class RefusedError(ServingError):
    """A model cannot answer a request; `is_too_long`: its prompt is longer than the model reads."""

    def __init__(self, message: str, *, is_too_long: bool) -> None:
        super().__init__(message)
        self.is_too_long = is_too_long


class OpenAddressError(ServingError):
    """Others could reach a service that asks for no key."""


class ParityError(LimbeckError, ArithmeticError):
    """A converted model differs from its original by more than the stated tolerance."""


class BusyError(LimbeckError, RuntimeError):
    """Another process is at work in this folder."""
