"""Reading a pack's folder, with every fault named by its file."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from limbeck import packs
from limbeck.contracts.config import Config
from limbeck.contracts.errors import DataError, UnknownNameError
from limbeck.contracts.facts import Wording
from limbeck.contracts.json_data import JsonObject
from limbeck.contracts.safety_rules import SafetyRules
from limbeck.data.packs.schema import (
    Names,
    Pack,
    PackDescription,
    QuestionForms,
    SpecialtyFacts,
    Subject,
)
from limbeck.data.packs.written_questions import read_written

SomeConfig = TypeVar("SomeConfig", bound=Config)
FACTS = "facts"
QUESTIONS = "questions.yaml"
WRITTEN = "evaluation"
SAFETY = "safety.yaml"
WORDING = "wording.yaml"
TERMS = "terms.yaml"


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
    subjects: dict[str, Subject] = {}
    specialty_of: dict[str, str] = {}
    for path in sorted((folder / FACTS).glob("*.yaml")):
        file = _read(path, SpecialtyFacts)
        if file.specialty not in description.specialties:
            known = ", ".join(description.specialties)
            raise DataError(f"unknown specialty {file.specialty!r}; known: {known}", path=path)
        for subject in file.subjects:
            if subject.name in subjects:
                raise DataError(f"{subject.name!r} stands in the pack twice", path=path)
            _check_subject(subject, description=description, path=path)
            subjects[subject.name] = subject
            specialty_of[subject.name] = file.specialty
    if not subjects:
        raise DataError("holds no facts; expected YAML files", path=folder / FACTS)
    for name in (*description.unknown.train, *description.unknown.evaluation):
        if name in subjects:
            raise DataError(f"{name!r} is unknown, yet has facts", path=folder / "pack.yaml")
    forms = _read_forms(folder / QUESTIONS, description=description)
    safety = SafetyRules()
    if (folder / SAFETY).is_file():
        safety = _read(folder / SAFETY, SafetyRules)
    wording = Wording()
    if has_wording(folder):
        wording = _read(folder / WORDING, Wording)
    terms = _load(folder / TERMS) if (folder / TERMS).is_file() else {}
    pack = Pack(
        folder,
        description,
        forms,
        subjects,
        specialty_of,
        safety=safety,
        wording=wording,
        terms=terms,
    )
    _check_wording(pack)
    return dataclasses.replace(pack, written=read_written(folder / WRITTEN, pack=pack))


def has_wording(folder: Path) -> bool:
    """Whether a pack says how its facts are asked for, so that a service may answer them."""
    return (folder / WORDING).is_file()


def empty_pack() -> Pack:
    """The pack of a corpus that has none: no names, no facts, no forms."""
    no_names = Names.model_construct(zh="", en="")
    description = PackDescription.model_construct(
        name="",
        title=no_names,
        language="en",
        joiner="",
        unknown_answer="",
        disclaimer=no_names,
        subject="",
        entities={},
        attributes={},
        specialties={},
        relations={},
    )
    return Pack(Path(), description, forms={}, subjects={}, specialty_of={})


def _check_wording(pack: Pack) -> None:
    """Refuse wording of what the pack does not hold."""
    relations = {key for key, item in pack.description.relations.items() if item.attributes}
    wanted = [
        *(("relation", name, relations) for name in pack.wording.questions),
        *(("subject", name, pack.subjects) for name in pack.wording.aliases),
    ]
    for what, name, known in wanted:
        if name not in known:
            message = str(UnknownNameError(name, known=known, what=what))
            raise DataError(message, path=pack.folder / WORDING)


def _check_subject(subject: Subject, *, description: PackDescription, path: Path) -> None:
    for key in subject.attributes:
        if key not in description.attributes:
            known = ", ".join(description.attributes)
            message = f"{subject.name!r} has the attribute {key!r}; known: {known}"
            raise DataError(message, path=path)
    for key, attribute in description.attributes.items():
        count = len(subject.attributes.get(key, ()))
        if count < attribute.min_items:
            message = f"{subject.name!r} has {count} {key}, expected at least {attribute.min_items}"
            raise DataError(message, path=path)


def _read_forms(path: Path, *, description: PackDescription) -> Mapping[str, QuestionForms]:
    forms = {
        key: _validate(path, QuestionForms, value, at=key) for key, value in _load(path).items()
    }
    for key in (*description.relations, *description.classifications):
        if key not in forms:
            raise DataError(f"has no forms for {key!r}; add them", path=path)
    for key, form in forms.items():
        slot = "{items}" if key in description.classifications else "{subject}"
        if wrong := next(_find_wrong(form, slot=slot), ""):
            raise DataError(
                f"{key}: {wrong!r} has not its slots ({slot}; {{subject}} and {{items}} in "
                "statements), or is for training and for evaluation at once",
                path=path,
            )
    return forms


def _find_wrong(forms: QuestionForms, *, slot: str) -> Iterator[str]:
    yield from (text for text in (*forms.train, *forms.evaluation) if text.count(slot) != 1)
    for text in forms.statements:
        if "{subject}" not in text or "{items}" not in text:
            yield text
    yield from sorted(set(forms.train) & set(forms.evaluation))


def _read(path: Path, kind: type[SomeConfig]) -> SomeConfig:
    return _validate(path, kind, _load(path), at="")


def _validate(path: Path, kind: type[SomeConfig], value: object, *, at: str) -> SomeConfig:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in ((at,) if at else ()) + fault["loc"]) or "the file"
        raise DataError(f"{where}: {fault['msg']}", path=path) from None


def _load(path: Path) -> JsonObject:
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path) from None
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: {error}", path=path) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise DataError(f"is not YAML: {error.problem}", path=path, line=line) from None
    except yaml.YAMLError as error:
        raise DataError(f"is not YAML: {error}", path=path) from None
    if not isinstance(value, dict):
        raise DataError(f"expected a mapping, found {type(value).__name__}", path=path)
    return value
