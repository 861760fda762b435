"""The models of tiers, as the command line names them: entries, folders, names of the registry.

A name of the registry is followed while a service runs; an entry or a folder is what it was when
the service started.
"""

import hashlib
from pathlib import Path
from typing import final

from typing_extensions import override

from limbeck.contracts.artifacts import Artifact, read_artifact
from limbeck.contracts.errors import ArtifactError
from limbeck.contracts.pointers import follow
from limbeck.pipeline.model_registry import ModelRegistry, roles
from limbeck.pipeline.store import Store
from limbeck.serving.config import TierConfig
from limbeck.serving.open import ServedModel
from limbeck.serving.place import is_gguf
from limbeck.serving.rollout.source import Assignment, ModelSource

MODEL_KINDS = ("bundle", "checkpoint")
GGUF_MAGIC = b"GGUF"


@final
class TierModels(ModelSource):
    """Finds models in the folder of a recipe's run, anywhere on the disk, and in the registry."""

    def __init__(self, *, root: Path, runs: Path) -> None:
        self._root = root
        self._runs = runs
        self._store = Store(runs)
        self._registry = ModelRegistry(self._store)
        self._folders: dict[str, Assignment] = {}
        self._named: dict[str, Assignment] = {}

    @override
    def find(self, tier: TierConfig) -> Assignment:
        if tier.name not in self._folders and tier.name not in self._named:
            for path in (self._root / tier.model, Path(tier.model)):
                if path.exists():
                    self._folders[tier.name] = self._open_folder(tier, path)
                    break
        if tier.name in self._folders:
            return self._folders[tier.name]
        if tier.name not in self._named and tier.model not in self._registry.names():
            raise ArtifactError(
                f"tier {tier.name}: no model {tier.model!r}; looked for {self._root / tier.model}, "
                f"for a folder of that name, and for a served name in {self._runs}; make it with "
                "`limbeck run`"
            )
        return self._find_named(tier)

    @override
    def verify(self, model: ServedModel) -> None:
        damage = self._store.find_damage(model.folder)
        if damage:
            raise ArtifactError(f"{model.folder}: damaged ({', '.join(damage[:3])})")
        found = read_artifact(model.folder, kinds=MODEL_KINDS).manifest.content_hash
        if found != model.key:
            raise ArtifactError(f"{model.folder}: is {found}, and was {model.key} when promoted")

    def _open_folder(self, tier: TierConfig, path: Path) -> Assignment:
        if is_gguf(tier.model):
            return Assignment(ServedModel(path.resolve(), hash_gguf(path)))
        found = _as_model(read_artifact(follow(path), kinds=MODEL_KINDS))
        if tier.wants_candidate:
            raise ArtifactError(
                f"tier {tier.name}: {path} is a folder and has no candidate; canary and shadow "
                "need a served name of the model registry (limbeck promote NAME FOLDER)"
            )
        return Assignment(found)

    def _find_named(self, tier: TierConfig) -> Assignment:
        stamp = self._registry.stamp(tier.model)
        known = self._named.get(tier.name)
        if known is not None and known.version == stamp:
            return known
        champion = _as_model(self._registry.resolve(tier.model))
        event = roles(self._registry.history(tier.model)).get("candidate")
        # Whether the candidate can be opened is found out when it is, and is no champion's matter.
        candidate = event and ServedModel(self._store.root / event.artifact, event.content_hash)
        self._named[tier.name] = Assignment(champion, candidate, stamp)
        return self._named[tier.name]


def hash_gguf(path: Path) -> str:
    """The hash of a GGUF file's content.

    Raises:
        ArtifactError: it is none, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                raise ArtifactError(f"{path}: is no GGUF file; name one that llama.cpp reads")
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None


def _as_model(artifact: Artifact) -> ServedModel:
    return ServedModel(artifact.path, artifact.manifest.content_hash)
