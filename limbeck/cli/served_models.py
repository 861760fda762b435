"""Which models `limbeck serve` opens: entries of a recipe, folders, or names of the registry."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from limbeck.cli.console import EXTRAS
from limbeck.cli.model_source import MODEL_KINDS
from limbeck.contracts.artifacts import read_artifact
from limbeck.contracts.errors import Fault, RecipeError
from limbeck.contracts.facts import FACTS_FILE
from limbeck.contracts.pointers import follow
from limbeck.contracts.recipe import SERVE, Recipe, load_recipe
from limbeck.contracts.tier_router import TierRouter, read_router
from limbeck.pipeline.check import check, explain
from limbeck.pipeline.entry import Entry
from limbeck.serving.config import FACTS, ServeConfig, TierConfig
from limbeck.serving.facts import NO_FACTS, FactStore, read_store
from limbeck.serving.open import ServedModel
from limbeck.serving.place import is_gguf
from limbeck.serving.rollout.live import LiveService
from limbeck.serving.rollout.source import ModelSource

MAX_NAME_CHARS = 64


def read_serving(target: Path, *, overrides: Sequence[str], runs: Path) -> tuple[ServeConfig, Path]:
    """The settings of a recipe or a folder, and the folder that names of models are looked up in.

    Raises:
        RecipeError: the recipe is wrong, or makes no model.
    """
    if target.is_dir() or is_gguf(str(target)):
        name = target.name if target.is_dir() else target.stem
        name = name[:MAX_NAME_CHARS] if name != "auto" and name[:1].isalpha() else "model"
        tier = TierConfig(name=_as_name(name), model=str(target))
        return ServeConfig(tiers=(tier,)), target.parent
    recipe = load_recipe(target, overrides=overrides)
    return read_serve_key(recipe), runs / recipe.name


def read_serve_key(recipe: Recipe) -> ServeConfig:
    """The recipe's key `serve`; without it, its last bundle or else its last checkpoint.

    Raises:
        RecipeError: the key is wrong, or the recipe makes no model.
    """
    if recipe.serve:
        try:
            return ServeConfig.model_validate(recipe.serve)
        except ValidationError as error:
            raise RecipeError(recipe.path, explain(recipe, (SERVE,), error)) from None
    entries = check(recipe)
    for kind in MODEL_KINDS:
        names = [name for name, entry in entries.items() if entry.config.make == kind]
        if names:
            return ServeConfig(tiers=(TierConfig(name=names[-1], model=names[-1]),))
    raise RecipeError(recipe.path, [Fault(SERVE, "the recipe makes no model that could answer")])


def check_serving(recipe: Recipe, entries: Mapping[str, Entry]) -> None:
    """Nothing, when every tier that names an entry names one that makes a model.

    Raises:
        RecipeError: the key `serve` is wrong, a tier names something else, or facts are to come
            from where there are none.
    """
    config, faults = read_serve_key(recipe), []
    if fault := _find_wrong_router(config, entries):
        faults.append(Fault("serve.router", fault, recipe.line(SERVE, "router")))
    if fault := _find_no_facts(config.facts.source, entries):
        line = recipe.line(SERVE, "facts", "source")
        faults.append(Fault("serve.facts.source", fault, line))
    for place, tier in enumerate(config.tiers):
        if tier.remote is not None:
            continue
        if is_gguf(tier.model):
            line = recipe.line(SERVE, "tiers", place, "model")
            where = f"serve.tiers.{place}.model"
            faults += [Fault(where, text, line) for text in _find_gguf_faults(tier)]
            continue
        entry = entries.get(tier.model)
        if entry is not None and tier.wants_candidate:
            line = recipe.line(SERVE, "tiers", place)
            message = "an entry has no candidate; canary and shadow need a name of the registry"
            faults.append(Fault(f"serve.tiers.{place}", message, line))
        if entry is not None and entry.config.make not in MODEL_KINDS:
            line = recipe.line(SERVE, "tiers", place, "model")
            message = f"{tier.model!r} makes a {entry.config.make}; name a bundle or checkpoint"
            faults.append(Fault(f"serve.tiers.{place}.model", message, line))
    if faults:
        raise RecipeError(recipe.path, faults)


def _find_wrong_router(config: ServeConfig, entries: Mapping[str, Entry]) -> str:
    """Why the router is none between these tiers; empty where it is, or is no entry."""
    entry = entries.get(config.router)
    if entry is None:
        return ""
    if entry.config.make != "router":
        return f"{config.router!r} makes a {entry.config.make}; name an entry of stage `route`"
    fitted = [item.target for item in entry.references if item.field == "tiers"]
    served = [tier.model for tier in config.tiers]
    if fitted != served and all(model in entries for model in served):
        return (
            f"{config.router!r} is a router between {', '.join(fitted)}, and the tiers are "
            f"{', '.join(served)}; name the same models in the same order"
        )
    return ""


def find_router(config: ServeConfig, *, root: Path) -> TierRouter | None:
    """The router between the tiers; None where there is to be none. `root`: the run's folder.

    Raises:
        ArtifactError: it has not been made, or is damaged.
    """
    if not config.router:
        return None
    inside = root / config.router
    path = inside if inside.exists() else Path(config.router)
    return read_router(read_artifact(follow(path), kinds=("router",)).path)


def _find_no_facts(source: str, entries: Mapping[str, Entry]) -> str:
    """Why no facts can be served from there; empty where they can, or none are wanted."""
    if not source:
        return ""
    if source not in entries:
        if (follow(Path(source)) / FACTS_FILE).is_file():
            return ""
        known = ", ".join(name for name, item in entries.items() if item.config.make == "corpus")
        return f"{source!r} is no entry and no folder with a {FACTS_FILE}; name a corpus ({known})"
    entry = entries[source]
    if entry.config.make != "corpus":
        return f"{source!r} makes a {entry.config.make}; name a corpus"
    while entry.target("corpus") in entries:
        entry = entries[entry.target("corpus")]
    if entry.config.makes_no_facts:
        return (
            f"{entry.name!r} has no pack with a wording.yaml, so it holds no facts to serve; name "
            "a corpus that has one (docs/serving/facts.md)"
        )
    return ""


def find_facts(config: ServeConfig, *, root: Path) -> FactStore:
    """The facts that the service states; `root`: the folder of the recipe's run.

    Raises:
        ArtifactError: there are none where they are to come from, or they are damaged.
    """
    source = config.facts.source
    if not source:
        return NO_FACTS
    inside = root / source
    return read_store(follow(inside if inside.exists() else Path(source)))


def _find_gguf_faults(tier: TierConfig) -> list[str]:
    found = []
    if not Path(tier.model).is_file():
        found.append(f"reads {tier.model!r}, which does not exist; check the path")
    if find_spec("xllamacpp") is None:
        found.append(f"a GGUF file needs xllamacpp: pip install 'limbeck[{EXTRAS['xllamacpp']}]'")
    return found


def find_models(config: ServeConfig, *, source: ModelSource) -> Mapping[str, ServedModel]:
    """The model of every tier that is on this machine, now.

    Raises:
        ArtifactError: one has not been made.
    """
    local = [tier for tier in config.tiers if tier.remote is None]
    return {tier.name: source.find(tier).champion for tier in local}


def _as_name(text: str) -> str:
    return "".join(
        char if char.isascii() and (char.isalnum() or char in "_-") else "-" for char in text
    )


def describe_tiers(
    service: LiveService, *, models: Mapping[str, ServedModel], router: TierRouter | None
) -> Iterator[str]:
    """Which model each tier has, and the tiers that `auto` leaves out, a line each."""
    for name, model in models.items():
        yield f"{name}: {model.folder}"
    for name, tier in service.tiers.items():
        if tier.config.remote is not None:
            yield f"{name}: {tier.config.model} at {tier.config.remote.url}"
    if service.facts.facts:
        yield f"{FACTS}: {len(service.facts.facts)} of {service.facts.pack}"
    if router is not None:
        return
    left_out = [name for name, tier in service.tiers.items() if not tier.is_open_to_auto]
    if 0 < len(left_out) < len(service.tiers):
        yield (
            f"`auto` leaves out {', '.join(left_out)}, which is not calibrated; set its "
            "min_confidence_ratio to let it answer"
        )
