"""Writes the pages of this folder: every field that a recipe can set, from the code itself.

    python docs/reference/make.py

`tests/docs/test_reference.py` compares the pages with what `make_pages` returns.
"""

import inspect
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from limbeck.cli.list import first_line
from limbeck.contracts.config import Choice, Config, NameIn, NameOr, Table, resolve
from limbeck.contracts.field_texts import read_field_texts
from limbeck.contracts.registry import TABLES
from limbeck.contracts.stage import Accepts
from limbeck.planning.targets import Target
from limbeck.serving.config import ServeConfig
from limbeck.sizing.assumptions import Assumptions
from limbeck.tuning.config import Tuning

FOLDER = Path(__file__).parent
SETTINGS = "settings"
KEYS: Mapping[str, type[Config]] = {"plan": Assumptions, "tune": Tuning, "serve": ServeConfig}
"""Keys of a recipe that are no entries."""
INTRODUCTIONS = {
    "stages": "An entry of a recipe has a key `stage`, which is one of these, and its fields.",
    "models": "A model that starts from random weights: `{kind: dense, hidden_size: 128, ...}`.",
    "readers": "The sources of `prepare`: `sources: [{kind: jsonl, path: my.jsonl}]`.",
    "filters": "What records pass in `prepare`: `filters: [{kind: length}]`.",
    "objectives": "What training minimises: `objective: {kind: soft_target, temperature: 2.0}`.",
    "divergences": "For `soft_target`: `divergence: {kind: reverse_kl}`.",
    "codecs": "What `record` stores of a teacher: `targets: {kind: plain, count: 16}`.",
    "question_choices": "What `label` asks: `choose: {kind: diverse, max_questions: 1000}`.",
    "label_forms": "What `label` writes of answers: `write: {kind: preferences, samples: 4}`.",
    "rewards": "What `grpo` rewards: `rewards: {facts: 1.0}`.",
    "criteria": "Which channels, heads and experts `prune` removes first: `criterion: group_l2`.",
    "formats": "Number formats: `scheme: {kind: int8}` of `quantize`; others are for `plan`.",
    "runtimes": "What `export` writes a bundle for: `runtime: onnx`.",
    "tasks": "How answers are scored; a task's questions come from the corpus.",
    "floors": "Rows of a report that need no model: `floors: [majority, lookup]` of `evaluate`.",
    "places": "Where a tier's model is: `place: {kind: openai_http, url: ...}` of `serve`.",
    "pruners": "When `limbeck tune` stops a trial early: `pruner: {kind: median}`.",
}
BOUNDS = ((Gt, "gt", "> {}"), (Ge, "ge", ">= {}"), (Lt, "lt", "< {}"), (Le, "le", "<= {}"))
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}


def make_pages() -> dict[str, str]:
    """Every page of the reference by its file's name."""
    nested: dict[str, type[Config]] = {}
    pages = {
        f"{name}.md": _finish(_make_table_page(name, table, nested))
        for name, table in TABLES.items()
    }
    own = [line for name, config in KEYS.items() for line in _section(name, config, nested)]
    target = _section("target", Target, nested)
    shared: list[str] = []
    done: set[str] = set()
    while rest := sorted(nested.keys() - done):
        for name in rest:
            done.add(name)
            shared += _section(name, nested[name], nested)
    pages["keys.md"] = _finish(
        ["# Keys of a recipe that are no entries", "", "They make no artifact.", "", *own]
    )
    pages["target.md"] = _finish(
        ["# The file of `limbeck plan --target`", "", "It is no part of a recipe.", "", *target]
    )
    pages[f"{SETTINGS}.md"] = _finish(
        ["# Settings", "", "Mappings that fields of several stages hold.", "", *shared]
    )
    pages["README.md"] = _finish(_make_index())
    return pages


def _make_index() -> list[str]:
    lines = [
        "# Field reference",
        "",
        "Every field that a recipe can set, with its type and its default. The pages are made from",
        "the code by `docs/reference/make.py`. `limbeck check` refuses every other key, with its",
        "line and the nearest field that exists.",
        "",
        "| page | what it lists |",
        "| --- | --- |",
    ]
    lines += [f"| [{name}]({name}.md) | {text} |" for name, text in INTRODUCTIONS.items()]
    lines.append(f"| [settings]({SETTINGS}.md) | Mappings such as `training` and `batching`. |")
    lines.append("| [keys](keys.md) | `plan` and `tune`, the keys that are no entries. |")
    lines.append("| [target](target.md) | A device's budgets, for `limbeck plan --target`. |")
    return lines


def _make_table_page(name: str, table: Table, nested: dict[str, type[Config]]) -> list[str]:
    lines = [f"# {name.capitalize()}", "", INTRODUCTIONS[name], ""]
    for key, target in table.items():
        found = resolve(table, key, what=name)
        if inspect.isclass(found) and issubclass(found, Config):
            lines += _section(key, found, nested)
        else:
            lines += [f"## {key}", "", first_line(target), ""]
    return lines


def _section(name: str, config: type[Config], nested: dict[str, type[Config]]) -> list[str]:
    lines = [f"## {name}", "", _paragraph(inspect.getdoc(config) or ""), ""]
    texts = read_field_texts(config)
    rows = [
        f"| `{key}` | {_name_type(field, nested)} | {_name_default(field)} | "
        f"{_cell(texts.get(key, ''))} |"
        for key, field in config.model_fields.items()
        if key not in ("kind", "stage")
    ]
    if rows:
        lines += ["| field | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""]
    return lines


def _paragraph(text: str) -> str:
    return " ".join(text.split("\n\n", 1)[0].split())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _finish(lines: Sequence[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def _name_default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return f"`{_plain(field.get_default(call_default_factory=True))}`"
    return "required" if field.default is PydanticUndefined else f"`{_plain(field.default)}`"


def _plain(value: object) -> str:
    """A default as a recipe would write it."""
    if isinstance(value, Config):
        written = {
            key: getattr(value, key)
            for key, field in type(value).model_fields.items()
            if key == "kind" or getattr(value, key) != field.default
        }
        return _plain(written)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)


def _name_type(field: FieldInfo, nested: dict[str, type[Config]]) -> str:
    return _describe(field.annotation, field.metadata, nested)


def _describe(kind: object, marks: Sequence[object], nested: dict[str, type[Config]]) -> str:
    for mark in marks:
        if isinstance(mark, Choice):
            page = next(name for name, table in TABLES.items() if table is mark.table)
            choice = f"a mapping of [{page}]({page}.md)"
            return f"an entry's name, or {choice}" if isinstance(mark, NameOr) else choice
        if isinstance(mark, NameIn):
            page = next((name for name, table in TABLES.items() if table is mark.table), "")
            return f"a name of [{page}]({page}.md)" if page else _list(mark.table)
        if isinstance(mark, Accepts):
            return f"name or path of a {' or '.join(mark.kinds)}"
    bounds = ", ".join(_bounds(marks))
    named = _describe_bare(kind, nested)
    return f"{named}, {bounds}" if bounds else named


def _bounds(marks: Sequence[object]) -> Iterator[str]:
    for mark in marks:
        for kind, name, text in BOUNDS:
            if isinstance(mark, kind):
                yield text.format(f"{getattr(mark, name):g}")
        if isinstance(mark, MinLen) and mark.min_length:
            yield "not empty" if mark.min_length == 1 else f"at least {mark.min_length}"
        if isinstance(mark, MaxLen):
            yield f"at most {mark.max_length}"
        if isinstance(mark, FieldInfo):
            yield from _bounds(mark.metadata)


def _describe_bare(kind: object, nested: dict[str, type[Config]]) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _describe(arguments[0], arguments[1:], nested)
    if origin is Literal:
        return _list(arguments)
    if origin in (Union, types.UnionType):
        parts = [_describe(item, (), nested) for item in arguments if item is not type(None)]
        return ", or ".join(dict.fromkeys(parts))
    if origin in (tuple, list, Sequence, frozenset, set):
        items = [item for item in arguments if item is not Ellipsis]
        return f"list of: {_describe(items[0], (), nested)}"
    if origin in (dict, Mapping) or origin is typing.get_origin(Mapping[str, str]):
        return f"mapping of names to: {_describe(arguments[1], (), nested)}"
    if inspect.isclass(kind) and issubclass(kind, Config):
        if inspect.isabstract(kind):
            return "a mapping"
        if nested.setdefault(kind.__name__, kind) is not kind:
            raise ValueError(f"two settings are called {kind.__name__}; rename one")
        return f"[{kind.__name__}]({SETTINGS}.md#{kind.__name__.lower()})"
    return PLAIN.get(kind, "any value") if inspect.isclass(kind) else "any value"


def _list(values: Iterable[object]) -> str:
    return " \\| ".join(f"`{_plain(item)}`" for item in values)


def main() -> None:
    """Write every page, and remove those that are made no more."""
    pages = make_pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
