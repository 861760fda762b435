"""A domain pack as the code sees it: facts, relations, question forms, departments, names.

Everything derives from the pack's files: one fact stands in one place.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from limbeck import packs
from limbeck.contracts.config import Config
from limbeck.contracts.errors import DataError, UnknownNameError

Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]


class Names(Config):
    """A thing's names in two languages."""

    zh: Text
    en: Text


class Specialty(Names):
    """A branch of the domain, and the other names that sources give it."""

    departments: tuple[Text, ...] = ()


class Relation(Names):
    """One thing that can be asked about a subject."""

    answer: Literal["single", "list"]
    triples: Text
    """Its name in files of triples."""
    fields: tuple[Text, ...]
    """Keys of a disease whose items answer it; none: the pack holds no such facts."""


class Unknown(Config):
    """Names of things that the pack holds nothing about."""

    train: tuple[Text, ...] = ()
    evaluation: tuple[Text, ...] = ()


class Forms(Config):
    """How a relation is asked and said."""

    train: Texts
    evaluation: Texts
    """Never trained on."""
    statements: Texts


class PackDescription(Config):
    """The content of `pack.yaml`."""

    name: Text
    title: Names
    language: Text
    joiner: Text
    """Stands between the items of a list answer."""
    unknown_answer: Text
    specialties: Annotated[Mapping[str, Specialty], Field(min_length=1)]
    relations: Annotated[Mapping[str, Relation], Field(min_length=1)]
    entities: Mapping[Literal["symptom", "drug"], tuple[Text, ...]]
    """Entity types to the keys of a disease that hold such names."""
    unknown: Unknown = Unknown()


class Disease(Config):
    """The facts about one disease."""

    name: Text
    english: Text
    symptoms: Texts
    examinations: Texts
    drugs: tuple[Text, ...]
    therapies: tuple[Text, ...]
    causes: Texts
    precautions: Texts


class Chapter(Config):
    """One file of facts: the diseases of one specialty."""

    specialty: Text
    diseases: Annotated[tuple[Disease, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Pack:
    """A loaded pack."""

    folder: Path
    description: PackDescription
    forms: Mapping[str, Forms]
    """By relation, and `triage`."""
    diseases: Mapping[str, Disease]
    specialty_of: Mapping[str, str]
    """A disease's name to its specialty's key."""

    def items(self, disease: str, relation: str) -> tuple[str, ...]:
        """What answers a relation of a disease; nothing when the pack does not say."""
        found: list[str] = []
        for field in self.description.relations[relation].fields:
            if field == "specialty":
                found.append(self.description.specialties[self.specialty_of[disease]].zh)
            else:
                found += getattr(self.diseases[disease], field)
        return tuple(found)

    @cached_property
    def names(self) -> Mapping[str, str]:
        """The entity lexicon: each name to its type; a disease's name stays a disease."""
        found: dict[str, str] = dict.fromkeys(self.diseases, "disease")
        for type_, fields in self.description.entities.items():
            for disease in self.diseases.values():
                for field in fields:
                    for name in getattr(disease, field):
                        found.setdefault(name, type_)
        return found

    @cached_property
    def specialties_of_name(self) -> Mapping[str, tuple[str, ...]]:
        """The specialties whose diseases have this name, symptom or drug."""
        found: dict[str, dict[str, None]] = {}
        for name, disease in self.diseases.items():
            fields = [field for group in self.description.entities.values() for field in group]
            for item in (name, *(item for field in fields for item in getattr(disease, field))):
                found.setdefault(item, {})[self.specialty_of[name]] = None
        return {name: tuple(keys) for name, keys in found.items()}

    @cached_property
    def _departments(self) -> Mapping[str, str]:
        return {
            alias: key
            for key, specialty in self.description.specialties.items()
            for alias in (key, specialty.zh, *specialty.departments)
        }

    def find_specialty(self, department: str) -> str:
        """The key of the specialty that a department belongs to, or ''."""
        return self._departments.get(department.strip(), "")


def locate_pack(name: str) -> Path:
    """The folder of a pack that ships with the project, or the folder that the name is.

    Raises:
        UnknownNameError: there is neither.
    """
    if name in packs.names():
        return packs.folder(name)
    if (Path(name) / "pack.yaml").is_file():
        return Path(name)
    raise UnknownNameError(name, known=packs.names(), what="pack")


def load_pack(name: str) -> Pack:
    """A pack by its name or its folder.

    Raises:
        UnknownNameError: there is none.
        DataError: one of its files is missing, is not YAML, or does not fit; with file and place.
    """
    folder = locate_pack(name)
    description = _read(folder / "pack.yaml", PackDescription)
    path = folder / "questions.yaml"
    forms = {key: _validate(path, Forms, value, at=key) for key, value in _load(path).items()}
    for key in (*description.relations, "triage"):
        if key not in forms:
            raise DataError(f"has no forms for {key!r}; add them", path=path)
    diseases: dict[str, Disease] = {}
    specialty_of: dict[str, str] = {}
    for path in sorted((folder / "diseases").glob("*.yaml")):
        chapter = _read(path, Chapter)
        if chapter.specialty not in description.specialties:
            known = ", ".join(description.specialties)
            raise DataError(f"unknown specialty {chapter.specialty!r}; known: {known}", path=path)
        for disease in chapter.diseases:
            if disease.name in diseases:
                raise DataError(f"{disease.name!r} stands in the pack twice", path=path)
            diseases[disease.name] = disease
            specialty_of[disease.name] = chapter.specialty
    if not diseases:
        raise DataError("holds no facts; expected YAML files", path=folder / "diseases")
    _check(description, forms, diseases, folder=folder)
    return Pack(folder, description, forms, diseases, specialty_of)


def _check(
    description: PackDescription,
    forms: Mapping[str, Forms],
    diseases: Mapping[str, Disease],
    *,
    folder: Path,
) -> None:
    for key, relation in description.relations.items():
        for field in relation.fields:
            if field != "specialty" and field not in Disease.model_fields:
                known = ", ".join(Disease.model_fields)
                message = f"relation {key!r} names the field {field!r}; known: specialty, {known}"
                raise DataError(message, path=folder / "pack.yaml")
    for name in (*description.unknown.train, *description.unknown.evaluation):
        if name in diseases:
            raise DataError(f"{name!r} is unknown, yet has facts", path=folder / "pack.yaml")
    for key, form in forms.items():
        slot = "{symptoms}" if key == "triage" else "{disease}"
        wrong = [text for text in (*form.train, *form.evaluation) if text.count(slot) != 1]
        wrong += [text for text in form.statements if slot not in text or "{items}" not in text]
        wrong += sorted(set(form.train) & set(form.evaluation))
        if wrong:
            raise DataError(
                f"{key}: {wrong[0]!r} has not its slots ({slot}; {{items}} in statements), or is "
                "for training and for evaluation at once",
                path=folder / "questions.yaml",
            )


def _read(path: Path, kind: type[Any]) -> Any:
    return _validate(path, kind, _load(path), at="")


def _validate(path: Path, kind: type[Any], value: Any, *, at: str) -> Any:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in ((at,) if at else ()) + fault["loc"]) or "the file"
        raise DataError(f"{where}: {fault['msg']}", path=path) from None


def _load(path: Path) -> dict[str, Any]:
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path) from None
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: {error}", path=path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise DataError(
            f"is not YAML: {problem}", path=path, line=mark.line + 1 if mark else 0
        ) from None
    if not isinstance(value, dict):
        raise DataError(f"expected a mapping, found {type(value).__name__}", path=path)
    return value
