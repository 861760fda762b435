"""The entries of a checked recipe, and what their references name."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.pointers import follow
from limbeck.contracts.stage import Reference, StageConfig


@dataclass(frozen=True)
class Entry:
    """One checked entry of a recipe."""

    name: str
    config: StageConfig
    references: tuple[Reference, ...]

    def target(self, field: str) -> str:
        """What a field names; '' where it names nothing."""
        return next((item.target for item in self.references if item.field == field), "")


def select_needed(entries: Mapping[str, Entry], names: Collection[str]) -> dict[str, Entry]:
    """Some entries and all that they are made from, in the order in which they can run.

    Raises:
        UnknownNameError: there is no entry of a name.
    """
    for name in names:
        if name not in entries:
            raise UnknownNameError(name, known=entries, what="entry")
    needed, waiting = set[str](), list(names)
    while waiting:
        current = waiting.pop()
        if current in entries and current not in needed:
            needed.add(current)
            waiting += [reference.target for reference in entries[current].references]
    return {key: entry for key, entry in entries.items() if key in needed}


def select_following(entries: Mapping[str, Entry], name: str) -> dict[str, Entry]:
    """An entry and all that is made from it, in the order in which they can run.

    Raises:
        UnknownNameError: there is no such entry.
    """
    if name not in entries:
        raise UnknownNameError(name, known=entries, what="entry")
    found = {name: entries[name]}
    for key, entry in entries.items():
        if any(reference.target in found for reference in entry.references):
            found[key] = entry
    return found


def names_models(entries: Mapping[str, Entry]) -> bool:
    """Whether a recipe names models outside itself."""
    return any(
        "checkpoint" in reference.kinds and reference.target not in entries
        for entry in entries.values()
        for reference in entry.references
    )


def exists(path: Path) -> bool:
    """Whether a path exists; a text too long for a name is none."""
    try:
        return path.exists()
    except OSError:  # such as a name too long to be one
        return False


def is_folder(target: str) -> bool:
    """Whether a reference's target is a folder; a text too long for a name is none."""
    path = Path(target)
    return exists(path) and follow(path).is_dir()


def names_hub(reference: Reference) -> bool:
    """Whether a target reads like `organisation/model` on the hub."""
    parts = reference.target.split("/")
    return "checkpoint" in reference.kinds and len(parts) == 2 and all(parts) and parts[0] != "."
