"""What every configuration shares, and lazy tables of named choices.

A Config describes; it never holds a model, a device or a tokenizer.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict

from limbeck.contracts.errors import UnknownNameError

SomeConfig = TypeVar("SomeConfig", bound="Config")
Table = Mapping[str, str]
"""Names to `"package.module:Object"`, imported on first use."""


class Config(BaseModel):
    """Base of every configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def replace(self: SomeConfig, **changes: Any) -> SomeConfig:
        """A copy with changes, validated again."""
        return type(self).model_validate(self.model_dump() | changes)

    def external_paths(self) -> Iterator[Path]:
        """Files and folders outside the run that this configuration reads."""
        for name in type(self).model_fields:
            yield from _paths(getattr(self, name))


def _paths(value: Any) -> Iterator[Path]:
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


def table_builder(table: Table, *, what: str) -> Callable[[Any], Config]:
    """A validator that turns a mapping with a key `kind` into that Config of the table."""

    def build(value: Any) -> Config:
        if isinstance(value, Config):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            raise ValueError(
                f"expected a mapping with a key 'kind', one of {', '.join(sorted(table))}; "
                f"found {value!r}"
            )
        try:
            config = resolve(table, value["kind"], what=what)
        except UnknownNameError as error:
            raise ValueError(str(error)) from None
        return config.model_validate(value)

    return build


def choice(table: Table, *, what: str) -> Any:
    """The type of a field whose `kind` picks one Config of a table."""
    return Annotated[Any, BeforeValidator(table_builder(table, what=what))]
