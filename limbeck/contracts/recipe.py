"""Recipes: a YAML mapping from artifact names to the stage that makes each.

`${NAME:-fallback}` in a string stands for an environment variable. The keys `plan`, `tune` and
`serve` are no entries: they state what `limbeck plan` takes for granted, what `limbeck tune`
searches and what `limbeck serve` serves, and make nothing.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from limbeck.contracts.errors import Fault, RecipeError
from limbeck.contracts.json_data import Json, JsonObject

PLAN = "plan"
TUNE = "tune"
SERVE = "serve"
ENTRY_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True)
class Recipe:
    """The text of a recipe, as data, with the line of every key."""

    name: str
    path: Path
    entries: dict[str, JsonObject]
    lines: dict[tuple[str, ...], int]
    plan: JsonObject = field(default_factory=dict)
    """Cards, sizes and data that a plan assumes."""
    tune: JsonObject = field(default_factory=dict)
    """What is searched for, and by which measure."""
    serve: JsonObject = field(default_factory=dict)
    """Which models answer in service."""

    def line(self, *keys: str | int) -> int:
        """The line of a key, or of the nearest key above it; 0 when it was set elsewhere."""
        path = tuple(str(key) for key in keys)
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def load_recipe(path: Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, with `entry.field=value` overrides applied.

    Raises:
        RecipeError: the file is missing, is not YAML, or is not a mapping of entries.
    """
    data, lines = _read_yaml(path, what="recipe", of="entries")
    data = _unshare(data)
    faults = _misshapen(data, lines) or _apply(data, overrides)
    faults += _unset(data, lines)
    if faults:
        raise RecipeError(path, faults)
    data = _expand(data)
    assumed = data.pop(PLAN, {})
    searched = data.pop(TUNE, {})
    served = data.pop(SERVE, {})
    return Recipe(path.stem, path, data, lines, assumed, searched, served)


def load_settings(
    path: Path, *, what: str, overrides: Sequence[str] = ()
) -> tuple[JsonObject, dict[tuple[str, ...], int]]:
    """The fields in a file that is no recipe, with `what.field=value` applied; the line of each.

    Raises:
        RecipeError: the file is missing, is not YAML, or is no mapping of fields.
    """
    data, lines = _read_yaml(path, what=what, of="fields")
    whole: JsonObject = {what: _unshare(data)}
    faults = _apply(whole, overrides) + _unset(whole[what], lines)
    if faults:
        raise RecipeError(path, faults)
    return _expand(whole[what]), lines


def _read_yaml(path: Path, *, what: str, of: str) -> tuple[JsonObject, dict[tuple[str, ...], int]]:
    """The mapping in a file, and the line of every key.

    Raises:
        RecipeError: the file is missing, is not YAML, or is no mapping.
    """
    if not path.is_file():
        near = ", ".join(str(item) for item in sorted(path.parent.glob("*.yaml"))) or "none"
        raise RecipeError(path, [Fault(what, f"no such file; {what}s there: {near}")])
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except UnicodeDecodeError as error:
        raise RecipeError(path, [Fault(what, f"is not UTF-8 text: {error}")]) from None
    except (yaml.YAMLError, ValueError) as error:
        line, problem = 0, ""
        if isinstance(error, yaml.MarkedYAMLError):
            line = error.problem_mark.line + 1 if error.problem_mark else 0
            problem = error.problem or ""
        problem = problem or str(error)
        raise RecipeError(path, [Fault(what, f"is not YAML: {problem}", line)]) from None
    if not isinstance(data, dict) or not data:
        raise RecipeError(
            path,
            [Fault(what, f"expected a mapping of {of}, found {type(data).__name__}", 1)],
        )
    lines: dict[tuple[str, ...], int] = {}
    faults = [*_collect_lines(node, (), lines)]
    if faults:
        raise RecipeError(path, faults)
    return data, lines


def _collect_lines(
    node: yaml.Node,
    keys: tuple[str, ...],
    lines: dict[tuple[str, ...], int],
    above: tuple[yaml.Node, ...] = (),
) -> Iterator[Fault]:
    """Note every key's line; YAML itself lets a later key of the same name win without a word."""
    if any(node is item for item in above):
        yield Fault(".".join(keys), "an alias that holds itself", node.start_mark.line + 1)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner, line = (*keys, str(key.value)), key.start_mark.line + 1
            if inner in lines and key.value != "<<":
                message = f"stands in the recipe twice, first in line {lines[inner]}; remove one"
                yield Fault(".".join(inner), message, line)
                continue
            lines[inner] = line
            yield from _collect_lines(value, inner, lines, (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*keys, str(index))] = value.start_mark.line + 1
            yield from _collect_lines(value, (*keys, str(index)), lines, (*above, node))


def _unshare(data: Json) -> Json:
    """A copy in which an alias is a copy too, so that an override changes one entry only."""
    if isinstance(data, dict):
        return {key: _unshare(item) for key, item in data.items()}
    if isinstance(data, list):
        return [_unshare(item) for item in data]
    return data


def _misshapen(data: Mapping[object, object], lines: dict[tuple[str, ...], int]) -> list[Fault]:
    faults = []
    for name, entry in data.items():
        line = lines.get((str(name),), 0)
        if not isinstance(name, str) or not ENTRY_NAME.fullmatch(name):
            message = "an entry's name must be letters, digits, '-' and '_', a letter first"
            faults.append(Fault(str(name), message, line))
        elif not isinstance(entry, dict):
            wanted = "" if name in (PLAN, TUNE, SERVE) else " with a key 'stage'"
            message = f"expected a mapping{wanted}, found {entry!r}"
            faults.append(Fault(name, message, line))
    return faults


def _apply(data: JsonObject, overrides: Sequence[str]) -> list[Fault]:
    faults = []
    for override in overrides:
        dotted, equals, text = override.partition("=")
        keys = dotted.split(".")
        if not equals or len(keys) < 2 or not all(keys):
            faults.append(Fault(f"--set {override}", "expected entry.field=value"))
            continue
        if keys[0] in (PLAN, TUNE):
            data.setdefault(keys[0], {})
        if keys[0] not in data:
            known = ", ".join(data)
            faults.append(Fault(f"--set {override}", f"no entry {keys[0]!r}; entries: {known}"))
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            faults.append(Fault(f"--set {override}", f"the value is not YAML: {error}"))
            continue
        message = _put(data, keys, value)
        if message:
            faults.append(Fault(f"--set {override}", message))
    return faults


def _put(data: Json, keys: Sequence[str], value: Json) -> str:
    """Set a value deep in the data; a message when the path does not lead anywhere."""
    for index, key in enumerate(keys):
        last = index == len(keys) - 1
        if isinstance(data, list):
            if not key.isdigit() or int(key) >= len(data):
                return f"{'.'.join(keys[:index])!r} is a list of {len(data)}; {key!r} is no index"
            if last:
                data[int(key)] = value
            else:
                data = data[int(key)]
        elif isinstance(data, dict):
            if last:
                data[key] = value
            else:
                data = data.setdefault(key, {})
        else:
            return f"{'.'.join(keys[:index])!r} holds {data!r}, which has no field {key!r}"
    return ""


def _unset(
    data: Json, lines: dict[tuple[str, ...], int], keys: tuple[str, ...] = ()
) -> list[Fault]:
    if isinstance(data, dict):
        return [
            fault for key, item in data.items() for fault in _unset(item, lines, (*keys, str(key)))
        ]
    if isinstance(data, list):
        return [
            fault
            for index, item in enumerate(data)
            for fault in _unset(item, lines, (*keys, str(index)))
        ]
    if not isinstance(data, str):
        return []
    return [
        Fault(".".join(keys), f"the environment variable {name} is not set", lines.get(keys, 0))
        for name, fallback in ((match[1], match[2]) for match in VARIABLE.finditer(data))
        if fallback is None and name not in os.environ
    ]


def _expand(data: Json) -> Json:
    if isinstance(data, dict):
        return {key: _expand(item) for key, item in data.items()}
    if isinstance(data, list):
        return [_expand(item) for item in data]
    if isinstance(data, str):
        return VARIABLE.sub(lambda match: os.environ.get(match[1], match[2]), data)
    return data
