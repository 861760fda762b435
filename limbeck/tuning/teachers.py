"""What the teachers of a tuned entry can give, known before anything runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from limbeck.contracts.artifacts import MANIFEST, ArtifactKind, read_manifest
from limbeck.distillation.signals.config import Codec
from limbeck.distillation.signals.manifest import read_signals_manifest
from limbeck.pipeline.entry import Entry, is_folder
from limbeck.stages.config import record
from limbeck.tuning.config import Choices, Range

TEMPERATURES = Range(low=1.0, high=3.0)


@dataclass(frozen=True)
class TeacherFacts:
    """One teacher: an entry of the recipe, a folder, or a model of the hub."""

    kind: ArtifactKind
    targets: Codec | None = None
    """What signals keep of each position."""


def find_teachers(entry: Entry, entries: Mapping[str, Entry]) -> tuple[TeacherFacts, ...]:
    """The teachers that an entry names, in order.

    Raises:
        ArtifactError: one is a damaged folder.
    """
    names = [item.target for item in entry.references if item.field == "teacher"]
    return tuple(_find(name, entries) for name in names)


def _find(name: str, entries: Mapping[str, Entry]) -> TeacherFacts:
    if name in entries:
        config = entries[name].config
        return TeacherFacts(
            config.make, config.targets if isinstance(config, record.Config) else None
        )
    folder = Path(name)
    if not is_folder(name) or not (folder / MANIFEST).is_file():
        return TeacherFacts("checkpoint")
    kind = read_manifest(folder).kind
    return TeacherFacts(kind, read_signals_manifest(folder).targets if kind == "signals" else None)


def find_temperatures(teachers: Sequence[TeacherFacts]) -> Range | Choices | None:
    """The temperatures that all teachers can be read at; None where that is one at most.

    A server's labels hold for temperature 1 alone, plain signals for those that were recorded.
    """
    if any(item.kind == "corpus" for item in teachers):
        return None
    recorded = list(_find_recorded(teachers))
    if not recorded:
        return TEMPERATURES
    shared = [item for item in recorded[0] if all(item in others for others in recorded)]
    return Choices(choices=tuple(shared)) if len(shared) > 1 else None


def _find_recorded(teachers: Sequence[TeacherFacts]) -> Iterator[tuple[float, ...]]:
    """The temperatures of each teacher that has some only, each of them once."""
    for item in teachers:
        temperatures = item.targets.known_temperatures() if item.targets else None
        if temperatures is not None:
            yield tuple(dict.fromkeys(temperatures))


def shows_layers(teachers: Sequence[TeacherFacts]) -> bool:
    """Whether layers can be matched by name: with one live teacher."""
    return [item.kind for item in teachers] == ["checkpoint"]
