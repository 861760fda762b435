"""The items of an answer in JSON, so that order and spelling of the JSON count for nothing.

A list holds items; a value of an object is an item together with its key. An object or a list
inside of a list is one item whole: the cells of a row have an order.
"""

import json
from collections.abc import Iterator

from limbeck.contracts.json_data import Json
from limbeck.evaluation.quantities import answer_key

STARTS = ("{", "[")


def json_items(text: str, *, language: str = "") -> set[str] | None:
    """The items of an answer, each by its key; None where it is no list or object in JSON."""
    if not text.lstrip().startswith(STARTS):
        return None
    try:
        found = json.loads(text, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        return None
    return {item for item in _items(found, "", language) if item}


def _items(value: Json, path: str, language: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            if isinstance(item, dict):
                parts = sorted(part for part in _items(item, "", language) if part)
                yield f"{path}{{{' '.join(parts)}}}" if parts else ""
            elif isinstance(item, list):
                cells = ["".join(_items([cell], "", language)) for cell in item]
                yield f"{path}[{' | '.join(cells)}]" if any(cells) else ""
            else:
                yield from _items(item, path, language)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _items(item, f"{path}{key.strip().casefold()}: ", language)
    elif value is not None and value != "":
        found = answer_key(str(value).strip(), language=language) or str(value).strip()
        yield f"{path}{found}" if found else ""
