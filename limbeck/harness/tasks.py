"""Tasks of lm-evaluation-harness by name: from a folder of one's own, or among its thousands.

A task that cannot be loaded is refused with its file and what is wrong there.
"""

import contextlib
import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.tasks.manager import TaskDict

from limbeck.contracts.errors import DataError, UnknownNameError

FILE_LOADERS = frozenset({"json", "csv", "parquet", "text", "arrow", "pandas", "xml"})
"""Values of `dataset_path` that read files instead of naming a data set."""
MAX_NEAR = 5


def load_tasks(names: Sequence[str], *, folder: Path | None, online: bool) -> TaskDict:
    """The tasks and groups of these names, or glob patterns, with their data loaded.

    Raises:
        UnknownNameError: no task has a name.
        DataError: the folder holds none, a task's file is wrong, or its data is not here.
    """
    if not names:
        raise DataError("no task is named; name one or more, parted by commas")
    loaded: TaskDict = {"tasks": {}, "groups": {}, "group_map": {}}
    for name, manager in _find(names, folder=folder).items():
        files = list(_list_files(name, index=manager.task_index))
        with _standing_beside(files), _named_faults(name, files=files, online=online):
            one = manager.load([name])
        loaded["tasks"] |= one["tasks"]
        loaded["groups"] |= one.get("groups", {})
        loaded["group_map"] |= one.get("group_map", {})
    return loaded


def _find(names: Sequence[str], *, folder: Path | None) -> dict[str, TaskManager]:
    """Every task or group that the names and patterns match, with the manager that knows it."""
    found: dict[str, TaskManager] = {}
    broken: dict[Path, str] = {}
    own = None
    if folder is not None:
        broken = _check_folder(folder)
        # A task's file is read again from the folder of its data, where no relative path holds.
        own = TaskManager(include_path=str(folder.resolve()), include_defaults=False)
    for name in names:
        matches = {} if own is None else _match(own, name)
        matches = matches or _match(_open_defaults(), name)
        if not matches:
            raise _unknown(name, own=own, folder=folder, broken=broken)
        found |= matches
    return found


@functools.cache
def _open_defaults() -> TaskManager:
    """The library's own tasks. Thousands of files are read here, for several seconds."""
    return TaskManager()


def _match(manager: TaskManager, name: str) -> dict[str, TaskManager]:
    names = [name] if name in manager.task_index else manager.match_tasks([name])
    return dict.fromkeys(names, manager)


def _unknown(
    name: str, *, own: TaskManager | None, folder: Path | None, broken: Mapping[Path, str]
) -> Exception:
    if broken:
        path, fault = next(iter(broken.items()))
        return DataError(
            f"no task {name!r} in {folder}, where this file is no task: {fault}", path=path
        )
    near = difflib.get_close_matches(name, _open_defaults().all_tasks, n=MAX_NEAR)
    known = [*(own.all_tasks if own is not None else ()), *near]
    return UnknownNameError(name, known=known, what="harness task")


def _check_folder(folder: Path) -> dict[Path, str]:
    """The files of a folder that are no tasks, with what is wrong there.

    Raises:
        DataError: the folder is missing, or has no file that could be a task.
    """
    if not folder.is_dir():
        raise DataError("no such folder; name one with task files (*.yaml)", path=folder)
    paths = sorted(folder.glob("**/*.yaml"))
    if not paths:
        raise DataError("holds no task file; a task is a file *.yaml", path=folder)
    broken = {}
    for path in paths:
        try:
            config = load_yaml(path, resolve_func=False)
        except Exception as error:  # of YAML, of files, of lm-eval's own reader
            broken[path] = _shorten(error)
            continue
        if not {"task", "group", "class"} & config.keys():
            broken[path] = "it has no key `task` with the task's name"
    return broken


@dataclass(frozen=True)
class TaskFile:
    """One task, the file that describes it, and its content."""

    task: str
    path: Path
    config: Mapping[str, Any]


def _list_files(name: str, *, index: Mapping[str, Entry]) -> Iterator[TaskFile]:
    """The files of a task; of a group or a tag, those of its members."""
    entry = index.get(name)
    if entry is None:
        return
    config = {} if entry.yaml_path is None else load_yaml(entry.yaml_path, resolve_func=False)
    members = config.get("task") if entry.kind is Kind.GROUP else sorted(entry.tags)
    if entry.kind not in (Kind.GROUP, Kind.TAG):
        if entry.yaml_path is not None:
            yield TaskFile(name, entry.yaml_path, config)
        return
    for member in members if isinstance(members, list) else [members]:
        inner = (member.get("task") or member.get("group")) if isinstance(member, dict) else member
        if isinstance(inner, str):
            yield from _list_files(inner, index=index)


@contextlib.contextmanager
def _standing_beside(files: Sequence[TaskFile]) -> Iterator[None]:
    """Read data files beside the tasks' files where they are there, else from the folder we are in.

    Raises:
        DataError: a data file is in neither.
    """
    folders = {item.path.parent for item in files}
    folder = folders.pop() if len(folders) == 1 else Path()
    named = [(item, name) for item in files for name in _data_files(item.config)]
    beside = all(_exists(folder, name) for _, name in named)
    for item, name in named:
        if not beside and not _exists(Path(), name):
            raise DataError(
                f"task {item.task!r} reads {name!r}, which is neither beside this file nor in "
                f"{Path.cwd()}; put it there",
                path=item.path,
            )
    with contextlib.chdir(folder if beside else Path()):
        yield


def _data_files(config: Mapping[str, Any]) -> Iterator[str]:
    """The local files that a task reads, as it names them."""
    if config.get("dataset_path") not in FILE_LOADERS:
        return
    found = (config.get("dataset_kwargs") or {}).get("data_files") or ()
    for value in found.values() if isinstance(found, Mapping) else [found]:
        for name in [value] if isinstance(value, str) else value:
            if "://" not in name:
                yield name


def _exists(folder: Path, name: str) -> bool:
    if Path(name).is_absolute():
        return Path(name).is_file()
    return any(folder.glob(name))


@contextlib.contextmanager
def _named_faults(name: str, *, files: Sequence[TaskFile], online: bool) -> Iterator[None]:
    """Errors of lm-eval, of `datasets` and of the task's own code, as one that names the file."""
    path = files[0].path if files else ""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a task is a file of somebody's, with code of theirs
        missing = sorted({source for item in files if (source := _find_download(item.config))})
        if missing and not online:
            raise DataError(
                f"task {name!r} needs the data set {missing[0]!r}, which is not on this machine, "
                "and nothing is downloaded; run again with --online, or name a task whose data "
                f"are local files (--task-folder). What the loader met: {_shorten(error)}",
                path=path,
            ) from error
        raise DataError(
            f"task {name!r} cannot be loaded: {type(error).__name__}: {_shorten(error)}", path=path
        ) from error


def _find_download(config: Mapping[str, Any]) -> str:
    """The data set that a task names on the hub; empty where it reads local files."""
    source = str(config.get("dataset_path") or "")
    return "" if source in FILE_LOADERS or Path(source).exists() else source


def _shorten(error: BaseException) -> str:
    """What it says, and what its cause says, on one line."""
    texts = [" ".join(str(error).split())]
    while error.__cause__ is not None:
        error = error.__cause__
        texts.append(" ".join(str(error).split()))
    return ": ".join(dict.fromkeys(texts))[:400]
