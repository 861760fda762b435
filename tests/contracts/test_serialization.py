"""Dataclasses as JSON data: nested, merged, and left out."""

import dataclasses
import json
from dataclasses import dataclass, field

from limbeck.contracts.config import Config
from limbeck.contracts.serialization import MERGED, to_json


class Limits(Config):
    most: int = 3
    names: tuple[str, ...] = ("a",)


@dataclass(frozen=True)
class Inner:
    low: float
    high: float | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner | None = field(metadata=MERGED)
    last: Inner | None = None


def test_merged_fields_stand_among_their_owners_in_order():
    assert list(to_json(Outer("n", Inner(0.5), Inner(1.0))).items()) == [
        ("name", "n"),
        ("low", 0.5),
        ("high", None),
        ("last", {"low": 1.0, "high": None}),
    ]


def test_none_is_written_unless_it_is_merged():
    assert to_json(Outer("n", None)) == {"name": "n", "last": None}


def test_everything_inside_is_json_data():
    value = {1: (Inner(1.0), [Limits()]), "empty": {}}
    assert to_json(value) == {
        "1": [{"low": 1.0, "high": None}, [{"most": 3, "names": ["a"]}]],
        "empty": {},
    }


def test_what_merges_nothing_is_written_as_the_standard_library_does():
    value = Inner(0.1 + 0.2)
    assert json.dumps(to_json(value)) == json.dumps(dataclasses.asdict(value))
