"""Typing and wiring a recipe: every fault at once, with its path and line in the file."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from limbeck.contracts.artifacts import MANIFEST, is_plain_checkpoint, read_artifact
from limbeck.contracts.config import resolve
from limbeck.contracts.errors import (
    ArtifactError,
    Fault,
    LimbeckError,
    RecipeError,
    UnknownNameError,
)
from limbeck.contracts.recipe import PLAN, Recipe
from limbeck.contracts.registry import STAGES
from limbeck.contracts.stage import Reference, StageConfig, references
from limbeck.pipeline.entry import Entry, exists, is_folder, names_hub
from limbeck.pipeline.preflight import inspect_models
from limbeck.sizing.assumptions import Assumptions


def check(recipe: Recipe, *, note: Callable[[str], None] = lambda text: None) -> dict[str, Entry]:
    """Every entry, typed and wired, in an order in which they can run.

    `note` is called with what a run will do unasked.

    Raises:
        RecipeError: with every fault at once.
    """
    faults: list[Fault] = []
    entries: dict[str, Entry] = {}
    for name, raw in recipe.entries.items():
        entry = _check_entry(recipe, name, raw, faults)
        if entry is not None:
            entries[name] = entry
    for entry in entries.values():
        faults.extend(_check_references(recipe, entry, entries))
        faults.extend(_check_corpora(recipe, entry, entries))
    try:
        Assumptions.model_validate(recipe.plan)
    except ValidationError as error:
        faults.extend(explain(recipe, (PLAN,), error))
    order = [] if faults else _order(entries)
    if not faults and len(order) < len(entries):
        circle = [name for name in entries if name not in order]
        where, line = circle[0], recipe.line(circle[0])
        faults.append(Fault(where, f"entries feed each other in a circle: {circle}", line))
    if not faults:
        found = inspect_models(recipe, {name: entries[name] for name in order})
        faults.extend(found.faults)
        for text in found.notes:
            note(text)
    if faults:
        raise RecipeError(recipe.path, sorted(faults, key=lambda fault: fault.line))
    return {name: entries[name] for name in order}


def _check_entry(
    recipe: Recipe, name: str, raw: Mapping[str, Any], faults: list[Fault]
) -> Entry | None:
    verb = raw.get("stage")
    if not isinstance(verb, str):
        message = f"needs a key 'stage', one of {', '.join(STAGES)}; found {verb!r}"
        faults.append(Fault(name, message, recipe.line(name)))
        return None
    try:
        config: StageConfig = resolve(STAGES, verb, what="stage").model_validate(raw)
    except UnknownNameError as error:
        faults.append(Fault(f"{name}.stage", str(error), recipe.line(name, "stage")))
        return None
    except ValidationError as error:
        faults.extend(explain(recipe, (name,), error))
        return None
    try:
        wrong = {str(path): _explain_path(path) for path in config.external_paths()}
    except LimbeckError as error:
        faults.append(Fault(name, str(error), recipe.line(name)))
        return None
    for path, reason in wrong.items():
        if reason:
            where = _find_value(raw, path) or ()
            message = f"reads {path!r}, which {reason}"
            faults.append(Fault(".".join((name, *where)), message, recipe.line(name, *where)))
    return Entry(name, config, tuple(references(config)))


def _explain_path(path: Path) -> str:
    """Why a file or folder cannot be read, and what to do; '' where it can."""
    if not exists(path):
        return "does not exist; check the path, from where you are now"
    if not os.access(path, os.R_OK):
        return "may not be read: permission denied; ask its owner, or name another"
    if not (path.is_file() or path.is_dir()):
        return "is a pipe or a device; write what it gives to a file first"
    return ""


def _find_value(data: Any, text: str) -> tuple[str, ...] | None:
    """The keys that lead to a text."""
    if data == text:
        return ()
    items = data.items() if isinstance(data, dict) else ()
    for key, item in enumerate(data) if isinstance(data, list) else items:
        keys = _find_value(item, text)
        if keys is not None:
            return (str(key), *keys)
    return None


def explain(recipe: Recipe, keys: tuple[str | int, ...], error: ValidationError) -> list[Fault]:
    """Faults with their path in the file; choices nest one validation in another."""
    faults = []
    for item in _leave_out_branches(error.errors()):
        where = (*keys, *item["loc"])
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):
            faults.extend(explain(recipe, where, inner))
            continue
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "unknown_key":
            pass  # names the nearest field already
        elif item["type"] == "missing":
            message = "is required and missing"
        elif not isinstance(item["input"], dict | list):
            message = f"{message}; found {item['input']!r}"
        faults.append(Fault(".".join(map(str, where)), message, recipe.line(*where)))
    return faults


def _leave_out_branches(errors: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """The errors by the recipe's own keys: pydantic names the branches of a choice among them.

    Where settings stand that a text might have named, they are no faulty text.
    """
    wrapped = [item for item in errors if _has_branch(item)]
    for item in errors:
        place = item["loc"]
        beside = any(other["loc"][: len(place) - 1] == place[:-1] for other in wrapped)
        if item["type"] != "string_type" or place[-1:] != ("str",) or not beside:
            yield {**item, "loc": tuple(part for part in place if not _is_branch(part))}


def _has_branch(item: ErrorDetails) -> bool:
    return any(map(_is_branch, item["loc"]))


def _is_branch(part: str | int) -> bool:
    return str(part).startswith("function-")


def _check_references(recipe: Recipe, entry: Entry, entries: Mapping[str, Entry]) -> list[Fault]:
    faults = []
    for reference in entry.references:
        where = f"{entry.name}.{reference.field}"
        line = recipe.line(entry.name, reference.field)
        wanted = " or ".join(reference.kinds)
        target = entries.get(reference.target)
        if target is not None:
            if target.config.make not in reference.kinds:
                message = f"{reference.target!r} makes a {target.config.make}, wanted a {wanted}"
                faults.append(Fault(where, message, line))
        elif reference.target in recipe.entries:
            continue  # its own fault is reported already
        elif is_folder(reference.target):
            if "checkpoint" in reference.kinds and is_plain_checkpoint(Path(reference.target)):
                continue
            if "checkpoint" in reference.kinds and (found := _describe_no_model(reference.target)):
                faults.append(Fault(where, found, line))
                continue
            try:
                read_artifact(Path(reference.target), kinds=reference.kinds)
            except ArtifactError as error:
                faults.append(Fault(where, str(error), line))
        elif not names_hub(reference):
            error = UnknownNameError(reference.target, known=recipe.entries, what="entry or folder")
            faults.append(Fault(where, str(error), line))
    return faults


def _describe_no_model(target: str) -> str:
    """What a folder holds in place of a model; '' for an artifact."""
    folder = Path(target)
    if (folder / MANIFEST).exists():
        return ""
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        named = re.search(r'"base_model_name_or_path":\s*"([^"]*)"', adapter.read_text("utf-8"))
        base = f" of {named[1]!r}" if named else ""
        return (
            f"{target}: holds an adapter{base} and no model; merge the two in an entry of "
            f"its own, {{stage: merge, adapter: {target}, checkpoint: MODEL}}, and name that"
        )
    return (
        f"{target}: has neither config.json nor {MANIFEST}, so it is no model and no artifact of "
        "Limbeck; name a folder that transformers' save_pretrained wrote, or an entry's"
    )


def _check_corpora(recipe: Recipe, entry: Entry, entries: Mapping[str, Entry]) -> Iterator[Fault]:
    """A fault for each corpus that an entry reads and that lacks what the entry needs."""
    for reference, found in _corpora_behind(entry, entries):
        config, message = found.config, ""
        if (need := entry.config.domain_need) and config.makes_no_domain:
            message = (
                f"{need} needs the domain of a pack, and {found.name!r} has none; set its `pack`"
            )
        if (need := entry.config.bare_questions_need) and config.makes_no_bare_questions:
            message = (
                f"{need} needs questions without answers, and {found.name!r} has none; give it a "
                "source of kind `questions`, or set its `labelled_ratio`"
            )
        if message:
            line = recipe.line(entry.name, reference.field)
            yield Fault(f"{entry.name}.{reference.field}", message, line)


def _corpora_behind(
    entry: Entry, entries: Mapping[str, Entry]
) -> Iterator[tuple[Reference, Entry]]:
    """Every corpus that an entry reads or that one of these was made from, with its own field."""
    for reference in entry.references:
        seen: set[str] = set()
        waiting = [reference.target] if "corpus" in reference.kinds else []
        while waiting:
            name = waiting.pop()
            if name in seen or name not in entries:
                continue
            seen.add(name)
            found = entries[name]
            yield reference, found
            waiting += [item.target for item in found.references if "corpus" in item.kinds]


def _order(entries: Mapping[str, Entry]) -> list[str]:
    """Names in the order of the recipe, each after what it refers to."""
    done: list[str] = []
    waiting = list(entries)
    while waiting:
        ready = [
            name
            for name in waiting
            if all(
                item.target in done or item.target not in entries
                for item in entries[name].references
            )
        ]
        if not ready:
            return done
        done.append(ready[0])
        waiting.remove(ready[0])
    return done
