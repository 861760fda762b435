"""Dataclasses as JSON data, so that tables, pages and files show the same fields."""

import dataclasses
from collections.abc import Mapping

from pydantic import BaseModel

MERGED = {"merged": True}
"""Metadata of a dataclass's field whose own fields stand among its owner's in JSON.

Where such a field is None, nothing of it is written; any other None is written as null.
"""

OPTIONAL = {"optional": True}
"""Metadata of a field that is not written where it is None."""


def to_json(value: object) -> object:
    """What `json.dumps` takes: objects in the order of their fields, enclosed values included."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value):
        return _write_fields(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def _write_fields(value: object) -> dict[str, object]:
    assert dataclasses.is_dataclass(value)
    found: dict[str, object] = {}
    held = vars(value)
    for field in dataclasses.fields(value):
        is_merged = field.metadata.get("merged", False)
        if held[field.name] is None and (is_merged or field.metadata.get("optional", False)):
            continue
        if is_merged:
            found |= _write_fields(held[field.name])
        else:
            found[field.name] = to_json(held[field.name])
    return found
