"""Which models `limbeck serve` opens: entries of a recipe, folders, or names of the registry."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from limbeck.contracts.artifacts import read_artifact
from limbeck.contracts.errors import ArtifactError, Fault, RecipeError
from limbeck.contracts.pointers import follow
from limbeck.contracts.recipe import SERVE, Recipe, load_recipe
from limbeck.pipeline.check import check, explain
from limbeck.pipeline.entry import Entry
from limbeck.pipeline.model_registry import ModelRegistry
from limbeck.pipeline.store import Store
from limbeck.serving.config import ServeConfig, TierConfig
from limbeck.serving.open import ServedModel

MODEL_KINDS = ("bundle", "checkpoint")


def read_serving(target: Path, *, overrides: Sequence[str], runs: Path) -> tuple[ServeConfig, Path]:
    """The settings of a recipe or a folder, and the folder that names of models are looked up in.

    Raises:
        RecipeError: the recipe is wrong, or makes no model.
    """
    if target.is_dir():
        name = target.name if target.name != "auto" and target.name[:1].isalpha() else "model"
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
        RecipeError: the key `serve` is wrong, or a tier names something else.
    """
    faults = []
    for place, tier in enumerate(read_serve_key(recipe).tiers):
        entry = entries.get(tier.model)
        if entry is not None and entry.config.make not in MODEL_KINDS:
            line = recipe.line(SERVE, "tiers", place, "model")
            message = f"{tier.model!r} makes a {entry.config.make}; name a bundle or checkpoint"
            faults.append(Fault(f"serve.tiers.{place}.model", message, line))
    if faults:
        raise RecipeError(recipe.path, faults)


def find_models(config: ServeConfig, *, root: Path, runs: Path) -> Mapping[str, ServedModel]:
    """Every tier's model.

    Raises:
        ArtifactError: one has not been made.
    """
    return {tier.name: _find(tier, root=root, runs=runs) for tier in config.tiers}


def _find(tier: TierConfig, *, root: Path, runs: Path) -> ServedModel:
    for path in (root / tier.model, Path(tier.model)):
        if path.exists():
            artifact = read_artifact(follow(path), kinds=MODEL_KINDS)
            return ServedModel(artifact.path, artifact.manifest.content_hash)
    registry = ModelRegistry(Store(runs))
    if tier.model in registry.names():
        artifact = registry.resolve(tier.model)
        return ServedModel(artifact.path, artifact.manifest.content_hash)
    raise ArtifactError(
        f"tier {tier.name}: no model {tier.model!r}; looked for {root / tier.model}, for a folder "
        f"of that name, and for a served name in {runs}; make it with `limbeck run`"
    )


def _as_name(text: str) -> str:
    return "".join(
        char if char.isascii() and (char.isalnum() or char in "_-") else "-" for char in text
    )
