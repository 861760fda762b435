"""What every configuration shares, and lazy tables of named choices.

A Config describes; it never holds a model, a device or a tokenizer.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.synonyms import MOVED, find_field

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

SomeConfig = TypeVar("SomeConfig", bound="Config")
BUILT_IN_ERRORS = frozenset(get_args(core_schema.ErrorType))
"""Types of errors that pydantic can make again from their name."""
Table = Mapping[str, str]
"""Names to `"package.module:Object"`, imported on first use."""


@dataclass_transform(
    kw_only_default=True, frozen_default=True, field_specifiers=(Field, PrivateAttr)
)
class FrozenModel(ModelMetaclass):
    """Tells a type checker that fields are read-only, so that a subclass may narrow their types."""


class Config(BaseModel, metaclass=FrozenModel):
    """Base of every configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _name_unknown_keys(cls, value: object, handler: Callable[[object], Any]) -> Any:
        """Validates; a key that no field has is answered with the field it probably means."""
        try:
            return handler(value)
        except ValidationError as error:
            raise ValidationError.from_exception_data(
                cls.__name__, [cls._explain(item) for item in _leave_out_counts(error.errors())]
            ) from None

    @classmethod
    def _explain(cls, item: ErrorDetails) -> InitErrorDetails:
        kind: str | PydanticCustomError = item["type"]
        if kind == "extra_forbidden" and len(item["loc"]) == 1:
            fields = tuple(cls.model_fields)
            near = find_field(str(item["loc"][0]), fields)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(fields)}"
            message = f"unknown key {item['loc'][0]!r}: {hint}"
            kind = PydanticCustomError("unknown_key", "{message}", {"message": message})
        elif kind not in BUILT_IN_ERRORS:
            # A validator made it, ours or pydantic's own: only its text describes it.
            name = "unknown_key" if kind == "unknown_key" else "refused"
            kind = PydanticCustomError(name, "{message}", {"message": item["msg"]})
        return InitErrorDetails(
            type=kind, loc=item["loc"], input=item["input"], ctx=item.get("ctx", {})
        )

    def replace(self: SomeConfig, **changes: object) -> SomeConfig:
        """A copy with changes, validated again."""
        return type(self).model_validate(self.model_dump() | changes)

    def external_paths(self) -> Iterator[Path]:
        """Files and folders outside the run that this configuration reads."""
        for name in type(self).model_fields:
            yield from _paths(getattr(self, name))


def _leave_out_counts(errors: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """The errors but those of lists that are too short only because their items have errors."""
    places = [item["loc"] for item in errors]
    for item in errors:
        place = item["loc"]
        inside = (other for other in places if other != place and other[: len(place)] == place)
        if item["type"] != "too_short" or not any(inside):
            yield item


def _paths(value: object) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Config):
        yield from value.external_paths()
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _paths(item)


def resolve(table: Table, name: str, *, what: str) -> Any:
    """The object that a table names, imported now.

    Raises:
        UnknownNameError: the table has no such name.
    """
    if name not in table:
        raise UnknownNameError(name, known=table, what=what)
    module, _, attribute = table[name].partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


@dataclass(frozen=True)
class Choice:
    """Marks a field whose key `kind` picks one Config of a table: `Annotated[Base, Choice(...)]`.

    The field has the type `Base` for a type checker, and holds an instance of it.
    """

    table: Table
    what: str
    """Names the table in messages."""

    def build(self, value: object) -> object:
        """The Config that a mapping describes; a Config stays as it is.

        Raises:
            ValueError: the mapping lacks `kind`, names none of the table, or has wrong fields.
        """
        if isinstance(value, Config):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            raise ValueError(
                f"expected a mapping with a key 'kind', one of {', '.join(sorted(self.table))}; "
                f"found {value!r}"
            )
        if value["kind"] in MOVED and value["kind"] not in self.table:
            raise ValueError(f"unknown {self.what} {value['kind']!r}: {MOVED[value['kind']]}")
        try:
            config = resolve(self.table, value["kind"], what=self.what)
        except UnknownNameError as error:
            raise ValueError(str(error)) from None
        return config.model_validate(value)

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Builds, then checks that the result is of the field's type; dumps every field of it."""
        schema = core_schema.any_schema()
        if source is not Any:
            schema = core_schema.is_instance_schema(source)
        return core_schema.no_info_before_validator_function(self.build, schema)


@dataclass(frozen=True)
class NameIn:
    """Marks a field that holds a name of a table: `Annotated[str, NameIn(TABLE, "what")]`."""

    table: Mapping[str, object]
    what: str
    """Names the table in messages."""

    def check(self, name: str) -> str:
        """The name.

        Raises:
            ValueError: the table has no such name.
        """
        if name not in self.table:
            raise ValueError(str(UnknownNameError(name, known=self.table, what=self.what)))
        return name

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Checks a text after everything else."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))


@dataclass(frozen=True)
class NameOr(Choice):
    """A field that names an artifact, or describes something of a table: `str | Base`."""

    def build(self, value: object) -> object:
        """The name as it is, or the Config that a mapping describes."""
        return value if isinstance(value, str) else super().build(value)
