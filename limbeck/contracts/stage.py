"""What every stage offers: a Config that describes it, and whose `run` makes one artifact.

`make` is the kind of artifact that comes out; references to other entries are string fields marked
with `Accepts`.
"""

import abc
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from limbeck.contracts.artifacts import ArtifactKind, Work
from limbeck.contracts.config import Config


@dataclass(frozen=True)
class Accepts:
    """Marks a string field as a reference: a recipe entry, a folder, or a hub name."""

    kinds: tuple[ArtifactKind, ...]


CorpusRef = Annotated[str, Accepts(("corpus",))]
CheckpointRef = Annotated[str, Accepts(("checkpoint",))]
ModelRef = Annotated[str, Accepts(("checkpoint", "bundle"))]
RouterRef = Annotated[str, Accepts(("router",))]
TeacherRef = Annotated[str, Accepts(("checkpoint", "signals", "corpus"))]


def check_initialize_from(source: str, *, start: object, field: str) -> None:
    """Refuse to take a checkpoint's weights over a model that has weights already.

    Raises:
        ValueError: `start`, the value of `field`, names a checkpoint to go on with.
    """
    if source and isinstance(start, str):
        raise ValueError(
            f"initialize_from: {source!r} is for a fresh {field}, yet `{field}` "
            f"continues from {start!r}; remove one of the two"
        )


class StageConfig(Config, abc.ABC):
    """Base of the `Config` of every stage."""

    make: ClassVar[ArtifactKind]
    measured: ClassVar[tuple[str, ...]] = ()
    """Files that hold measurements, so the content hash leaves them out."""
    shows_name: ClassVar[bool] = False
    """Whether its files hold the entry's name, which then belongs to the key."""
    shows_references: ClassVar[bool] = False
    """Whether its files hold the names of the entries that it refers to, which then do as well."""
    processes: ClassVar[Literal["first", "all"]] = "first"
    """Which of the processes that were launched together run the stage."""

    stage: str
    """The verb: a name from `limbeck list stages`."""

    @property
    def makes_no_domain(self) -> bool:
        """Whether it makes a corpus of no domain: one without a pack."""
        return False

    @property
    def domain_need(self) -> str:
        """What of it needs the domain of the corpus's pack; empty: nothing."""
        return ""

    @property
    def makes_no_facts(self) -> bool:
        """Whether it makes a corpus without facts that a service could state."""
        return False

    @property
    def makes_no_bare_questions(self) -> bool:
        """Whether it makes a corpus all of whose training questions have answers."""
        return False

    @property
    def bare_questions_need(self) -> str:
        """What of it needs training questions without answers; empty: nothing."""
        return ""

    @abc.abstractmethod
    def run(self, *, work: Work) -> Mapping[str, object]:
        """Write the artifact into `work.folder`; the metrics of its manifest."""


@dataclass(frozen=True)
class Reference:
    """One field of a recipe entry that names an artifact."""

    field: str
    target: str
    kinds: tuple[ArtifactKind, ...]


def references(config: StageConfig) -> Iterator[Reference]:
    """Every reference of a stage's config, in the order of its fields."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in type(config).model_fields:
        accepted = _find_accepts(hints[field])
        value = getattr(config, field)
        if accepted is None:
            continue
        for target in (value,) if isinstance(value, str) else value:
            if isinstance(target, str) and target:
                yield Reference(field, target, accepted.kinds)


def _find_accepts(hint: object) -> Accepts | None:
    for item in getattr(hint, "__metadata__", ()):
        if isinstance(item, Accepts):
            return item
    for inner in typing.get_args(hint):
        found = _find_accepts(inner)
        if found is not None:
            return found
    return None
