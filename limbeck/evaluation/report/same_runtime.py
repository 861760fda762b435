"""How much faster a bundle answers than its teacher in the same runtime.

A report compares every model with the teacher as it is given, mostly a checkpoint in PyTorch: for
a bundle that is the runtime's gain times the model's. Where the teacher has a bundle, too, the
model's own part stands alone. Which row that is follows from the manifests, not from the names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limbeck.contracts.artifacts import Artifact
from limbeck.evaluation.metrics import speed_ratio
from limbeck.evaluation.profiling.profile import Profile


@dataclass(frozen=True)
class RuntimeSpeedup:
    """The median time of the teacher's bundle over that of another one of its runtime."""

    model: str
    teacher: str
    """The row of the teacher's bundle."""
    runtime: str
    speedup: float
    low: float
    high: float
    """The 95 % interval, paired over the timed answers."""


def compare_in_runtimes(
    models: Sequence[Artifact],
    *,
    teacher: str,
    profiles: Mapping[str, Profile],
    num_threads: int,
) -> tuple[RuntimeSpeedup, ...]:
    """Every bundle beside the teacher's own of the same runtime; empty where the teacher has none.

    `profiles` are by the name of the model.
    """
    reference = next(item for item in models if item.name == teacher)
    bundles = {_runtime(item): item for item in models if is_bundle_of(item, reference)}
    found = []
    for model in models:
        runtime = _runtime(model)
        other = bundles.get(runtime)
        if other is None or other is model:
            continue
        seconds, before = (profiles[item.name].seconds(num_threads) for item in (model, other))
        ratio = speed_ratio(seconds=seconds, reference_seconds=before)
        found.append(
            RuntimeSpeedup(model.name, other.name, runtime, ratio.value, ratio.low, ratio.high)
        )
    return tuple(found)


def _runtime(item: Artifact) -> str:
    """What a bundle was exported for; '' for a checkpoint."""
    return str(item.manifest.recipe.get("runtime", "")) if item.manifest.kind == "bundle" else ""


def is_bundle_of(item: Artifact, checkpoint: Artifact) -> bool:
    """Whether an artifact is a checkpoint's bundle."""
    parents = item.manifest.parents.get("checkpoint", ())
    return item.manifest.kind == "bundle" and any(
        parent.content_hash == checkpoint.manifest.content_hash for parent in parents
    )
