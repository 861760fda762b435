"""What is searched: paths in a recipe's entry, checked before anything runs."""

import copy
import dataclasses
import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import ValidationError

from limbeck.contracts.artifacts import Artifact
from limbeck.contracts.errors import Fault, RecipeError
from limbeck.contracts.recipe import TUNE, Recipe
from limbeck.distillation.losses.config import searched_divergences
from limbeck.pipeline.check import check, explain
from limbeck.pipeline.entry import Entry
from limbeck.tuning.config import Choices, Range, Tuning
from limbeck.tuning.dimensions import Dimension, label
from limbeck.tuning.starts import make_starts
from limbeck.tuning.teachers import find_teachers, find_temperatures, shows_layers

EVERY = "*"
SNIPPET = """tune:
  stage: {stage}
  metric: kept_accuracy
  search:
    objective.temperature: {{low: 1.5, high: 3.0}}
    objective.weight: {{low: 0.3, high: 0.95}}
    training.learning_rate: {{low: 0.0003, high: 0.01, log: true}}
  budget: {{max_mib: 4}}
  trials: 20"""
PLAIN = ("objective.temperature", "objective.weight")
"""Left out of the default space where the recipe has a schedule."""
SEEDS = (("seed",), ("training", "seed"), ("batching", "seed"))
"""Of the student's start, of training, and of the order of records."""
LAYER_MAPS = ([], [{"layers": "last"}], [{"layers": "uniform"}])


@dataclass(frozen=True)
class Space:
    """The searched dimensions of one entry, and what to make before any trial."""

    entry: Entry
    written: Mapping[str, Any]
    """The entry as the recipe writes it."""
    dimensions: tuple[Dimension, ...]
    needed: frozenset[str]
    """Entries that a trial may name."""
    starts: tuple[Mapping[str, Any], ...]
    """What is tried first; the recipe's own values before all, as far as the space has them."""

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna samples from, by path."""
        return {item.path: item.distribution for item in self.dimensions}

    def apply(self, sampled: Mapping[str, Any]) -> dict[str, Any]:
        """The entry with sampled values; a whole list is put before what lies below it."""
        changes = {item.keys: item.decode(sampled[item.path]) for item in self.dimensions}
        return _change(self.entry, self.written, changes)

    def reseed(self, sampled: Mapping[str, Any] | None, *, shift: int) -> dict[str, Any]:
        """The entry with sampled values, or as it is written, and each of its seeds shifted."""
        entry = dict(self.written) if sampled is None else self.apply(sampled)
        resolved = self.entry.config.model_dump(mode="json")
        changes = {keys: next(_find(resolved, keys)) + shift for keys in SEEDS}
        return _change(self.entry, entry, changes)


def name_folders(
    entry: Mapping[str, Any], *, fields: Collection[str], made: Mapping[str, Artifact]
) -> dict[str, Any]:
    """An entry that runs alone: these fields name the folders of what was made, not entries."""

    def point(value: Any) -> Any:
        if isinstance(value, list):
            return [point(item) for item in value]
        found = made.get(value) if isinstance(value, str) else None
        return str(found.path) if found is not None else value

    return {key: point(value) if key in fields else value for key, value in entry.items()}


def find_own(entry: Entry, dimensions: Sequence[Dimension]) -> dict[str, Any]:
    """The recipe's own values as Optuna's; left out where it has several, or one outside."""
    found = {}
    resolved = entry.config.model_dump(mode="json")
    for item in dimensions:
        values = list(_find(resolved, item.keys))
        if not values or any(value != values[0] for value in values):
            continue
        sampled = item.encode(values[0])
        if sampled is not None:
            found[item.path] = sampled
    return found


def read_tuning(recipe: Recipe) -> Tuning:
    """The recipe's key `tune`.

    Raises:
        RecipeError: it is missing, or wrong.
    """
    if not recipe.tune:
        distilled = [
            name for name, entry in recipe.entries.items() if entry.get("stage") == "distill"
        ]
        snippet = SNIPPET.format(stage=distilled[0] if distilled else "student")
        message = f"is missing, so there is nothing to search; add to the recipe:\n\n{snippet}\n"
        raise RecipeError(recipe.path, [Fault(TUNE, message)])
    try:
        return Tuning.model_validate(recipe.tune)
    except ValidationError as error:
        raise RecipeError(recipe.path, explain(recipe, (TUNE,), error)) from None


def make_space(recipe: Recipe, tuning: Tuning, entries: Mapping[str, Entry]) -> Space:
    """The checked space of a recipe; the default one where it names none.

    Raises:
        RecipeError: with every path that does not exist and every value that the entry refuses.
    """
    entry = entries.get(tuning.stage)
    if entry is None or entry.config.stage != "distill":
        known = [name for name, item in entries.items() if item.config.stage == "distill"]
        message = f"{tuning.stage!r} is no distill entry; there are: {', '.join(known) or 'none'}"
        raise RecipeError(recipe.path, [Fault("tune.stage", message, recipe.line(TUNE, "stage"))])
    _check_metric(recipe, tuning, entry, entries)
    search = tuning.search or default_search(recipe, entry, entries)
    resolved = entry.config.model_dump(mode="json")
    faults: list[Fault] = []
    dimensions = []
    needed = {item.target for item in entry.references}
    for path, axis in search.items():
        where, line = f"tune.search.{path}", recipe.line(TUNE, "search", path)
        message, dimension = _make_dimension(path, axis, resolved, search)
        if dimension is None:
            faults.append(Fault(where, message, line))
            continue
        dimensions.append(dimension)
        for value in dimension.ends():
            changed = _change(entry, recipe.entries[entry.name], {dimension.keys: value})
            trial = dataclasses.replace(recipe, entries=recipe.entries | {entry.name: changed})
            try:
                needed |= {item.target for item in check(trial)[entry.name].references}
            except RecipeError as error:
                found = "; ".join(f"{item.where}: {item.message}" for item in error.faults)
                faults.append(Fault(where, f"the value {value!r} is refused: {found}", line))
    starts: list[dict[str, Any]] = []
    if not faults:
        own = find_own(entry, dimensions)
        starts, faults = make_starts(recipe, tuning, dimensions=dimensions, own=own)
    if faults:
        raise RecipeError(recipe.path, sorted(faults, key=lambda fault: fault.line))
    return Space(
        entry,
        recipe.entries[entry.name],
        tuple(dimensions),
        frozenset(needed & set(entries)),
        tuple(starts),
    )


def _check_metric(
    recipe: Recipe, tuning: Tuning, entry: Entry, entries: Mapping[str, Entry]
) -> None:
    """Refuse to compare with a teacher that answers nothing, before its labels are paid for."""
    teachers = find_teachers(entry, entries)
    if tuning.metric == "likelihood" or (teachers and teachers[0].kind != "corpus"):
        return
    found = "a labelled corpus" if teachers else "none"
    message = (
        f"kept_accuracy asks the teacher, and that of {entry.name!r} is {found}; set "
        "`metric: likelihood`"
    )
    raise RecipeError(recipe.path, [Fault("tune.metric", message, recipe.line(TUNE, "metric"))])


def default_search(
    recipe: Recipe, entry: Entry, entries: Mapping[str, Entry]
) -> dict[str, Range | Choices]:
    """Temperature, divergence, weights, layer map and learning rate, as far as the entry has them.

    Left out: temperatures and layers that its teachers cannot give, and what follows a schedule.
    """
    resolved = entry.config.model_dump(mode="json")
    teachers = find_teachers(entry, entries)
    found: dict[str, Range | Choices] = {
        "objective.weight": Range(low=0.0, high=0.95),
        "objective.divergence": Choices(
            choices=tuple({"kind": name} for name in searched_divergences())
        ),
        "training.learning_rate": Range(
            low=resolved["training"]["learning_rate"] / 3,
            high=resolved["training"]["learning_rate"] * 3,
            log=True,
        ),
    }
    temperatures = find_temperatures(teachers)
    if temperatures is not None:
        found["objective.temperature"] = temperatures
    layered = False
    if shows_layers(teachers):
        own = next(_find(resolved, ("objective", "matching")), [])
        maps = [item for item in (own, *LAYER_MAPS) if _accepts(recipe, entry, item)]
        maps = [item for index, item in enumerate(maps) if item not in maps[:index]]
        layered = len(maps) > 1
        if layered:
            found["objective.matching"] = Choices(choices=tuple(maps))
    if layered or any(_find(resolved, ("objective", "matching", EVERY, "weight"))):
        found["objective.matching.*.weight"] = Range(low=0.05, high=2.0, log=True)
    return {
        path: axis
        for path, axis in found.items()
        if path.count(EVERY) or _holds(resolved, tuple(path.split(".")), plain=path in PLAIN)
    }


def _holds(resolved: Any, keys: Sequence[str], *, plain: bool) -> bool:
    """Whether a path leads somewhere, to no mapping where it is to be plain."""
    return any(not (plain and isinstance(value, Mapping)) for value in _find(resolved, keys))


def _accepts(recipe: Recipe, entry: Entry, matching: Any) -> bool:
    keys = ("objective", "matching")
    changed = _change(entry, recipe.entries[entry.name], {keys: matching})
    try:
        type(entry.config).model_validate(changed)
    except ValidationError:
        return False
    return True


def _make_dimension(
    path: str, axis: Range | Choices, resolved: Any, search: Mapping[str, Any]
) -> tuple[str, Dimension | None]:
    """A message about a path or its values, or the dimension."""
    keys = tuple(path.split("."))
    above = [other for other in search if path.startswith(f"{other}.")]
    message = "" if above else _missing(resolved, keys)
    if message:
        return message, None
    if isinstance(axis, Choices):
        labels = [label(value) for value in axis.choices]
        if len(set(labels)) < len(labels):
            return f"two of the choices are the same: {labels}; remove one", None
        return "", Dimension(path, CategoricalDistribution(labels), tuple(axis.choices))
    values = list(_find(resolved, keys))
    wrong = [item for item in values if isinstance(item, bool) or not isinstance(item, int | float)]
    if wrong:
        return f"holds {wrong[0]!r}, which is no number: give it `choices`", None
    if values and all(isinstance(item, int) for item in values):
        if not (axis.low.is_integer() and axis.high.is_integer()):
            return f"holds whole numbers; found {axis.low:g} and {axis.high:g}", None
        return "", Dimension(path, IntDistribution(int(axis.low), int(axis.high), log=axis.log))
    return "", Dimension(path, FloatDistribution(axis.low, axis.high, log=axis.log))


def _missing(resolved: Any, keys: Sequence[str]) -> str:
    """Why a path leads nowhere; empty where it leads somewhere."""
    data = resolved
    for index, key in enumerate(keys):
        above = ".".join(keys[:index]) or "the entry"
        if isinstance(data, list):
            if key == EVERY and data:
                key = "0"
            if not key.isdigit() or int(key) >= len(data):
                return f"no item {key!r} in {above}, a list of {len(data)}"
            data = data[int(key)]
        elif isinstance(data, dict) and key in data:
            data = data[key]
        elif isinstance(data, dict):
            near = difflib.get_close_matches(key, data, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            return f"no key {key!r} in {above}: {hint}known: {', '.join(data)}"
        else:
            return f"{above} holds {data!r}, which has no key {key!r}"
    return ""


def _find(data: Any, keys: Sequence[str]) -> Iterator[Any]:
    """Every value at a path."""
    if not keys:
        yield data
    elif isinstance(data, list):
        indices = range(len(data)) if keys[0] == EVERY else [int(keys[0])]
        for index in indices:
            yield from _find(data[index], keys[1:])
    elif isinstance(data, dict) and keys[0] in data:
        yield from _find(data[keys[0]], keys[1:])


def _change(
    entry: Entry, written: Mapping[str, Any], changes: Mapping[tuple[str, ...], Any]
) -> dict[str, Any]:
    data = copy.deepcopy(dict(written))
    resolved = entry.config.model_dump(mode="json")
    for keys in sorted(changes, key=len):
        _put(data, keys, copy.deepcopy(changes[keys]), resolved=resolved)
    return data


def _put(data: Any, keys: Sequence[str], value: Any, *, resolved: Any) -> None:
    """Set a value deep in what is written; what is not written starts from its resolved value."""
    key, rest = keys[0], keys[1:]
    if isinstance(data, list):
        for index in range(len(data)) if key == EVERY else [int(key)]:
            if rest:
                inner = (
                    resolved[index] if isinstance(resolved, list) and index < len(resolved) else {}
                )
                _put(data[index], rest, value, resolved=inner)
            else:
                data[index] = value
    elif rest:
        inner = resolved.get(key, {}) if isinstance(resolved, dict) else {}
        _put(data.setdefault(key, copy.deepcopy(inner)), rest, value, resolved=inner)
    else:
        data[key] = value
