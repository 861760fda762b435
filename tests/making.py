"""Artifacts made by hand, for tests of single stages."""

from limbeck.contracts.artifacts import Artifact, Manifest


def make_artifact(folder, kind, *, parents=None, seconds=1.0):
    """A folder with a manifest that says of itself what tests ask about."""
    manifest = Manifest(
        name=folder.name, kind=kind, stage="make", key="", content_hash=f"hash of {folder.name}",
        parents=parents or {}, sources={}, recipe={}, versions={}, files={}, metrics={},
        seconds=seconds,
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return Artifact(folder, manifest)
