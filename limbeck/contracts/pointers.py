"""Names that point at artifacts: relative symbolic links.

Where the system makes no links (Windows without the right to), a name is a text file that holds the
relative path.
"""

import os
import uuid
from pathlib import Path

HEADER = "limbeck artifact: "


def point(name: Path, *, at: Path) -> None:
    """Make a name point at a folder, in one step that a kill cannot halve."""
    target = os.path.relpath(at.resolve(), name.parent.resolve())
    new = name.with_name(f".{name.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        new.symlink_to(target, target_is_directory=True)
    except (OSError, NotImplementedError):
        new.write_text(HEADER + Path(target).as_posix(), encoding="utf-8")
    new.replace(name)


def is_pointer(path: Path) -> bool:
    """Whether a path is a name that points, at something that exists or not."""
    if path.is_symlink():
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(HEADER)) == HEADER.encode()


def follow(path: Path) -> Path:
    """The folder that a name points at; any other path as it is."""
    if path.is_symlink():
        return Path(os.path.normpath(path.parent.resolve() / path.readlink()))
    if is_pointer(path):
        target = path.read_text(encoding="utf-8").removeprefix(HEADER).strip()
        return Path(os.path.normpath(path.parent.resolve() / target))
    return path
