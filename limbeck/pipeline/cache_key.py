"""The key of an entry: a hash of everything that its stage reads.

It hashes the resolved config with every reference replaced by the content hash of what it names, so
that a change reaches exactly what depends on it.
"""

import json
from collections.abc import Mapping
from typing import Any

import limbeck
from limbeck.contracts.artifacts import Artifact, hash_text
from limbeck.pipeline.entry import Entry


def hash_key(
    entry: Entry, *, inputs: Mapping[str, tuple[Artifact, ...]], sources: Mapping[str, str]
) -> str:
    """The key; `sources` gives the hash of each file and folder that the config names."""
    hashes = dict(sources)
    for field in inputs:
        targets = [item.target for item in entry.references if item.field == field]
        for target, artifact in zip(targets, inputs[field], strict=True):
            hashes[target] = artifact.manifest.content_hash

    def replace(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: replace(item) for name, item in value.items()}
        if isinstance(value, list):
            return [replace(item) for item in value]
        return hashes.get(value, value) if isinstance(value, str) else value

    resolved = replace(entry.config.model_dump(mode="json"))
    shows_references = type(entry.config).shows_references
    shown = [item.target for item in entry.references] if shows_references else []
    if type(entry.config).shows_name:
        shown.append(entry.name)
    value = [limbeck.__version__, resolved, sorted(sources.values()), shown]
    return hash_text(json.dumps(value, sort_keys=True))
