"""What can be named in a recipe, and what an artifact is: as data, and as text to read.

Left out: running anything.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.tree import Tree

from limbeck.contracts.artifacts import Artifact, size_bytes
from limbeck.contracts.config import resolve
from limbeck.contracts.errors import UnknownNameError
from limbeck.contracts.lineage import Ancestor
from limbeck.contracts.pointers import follow, is_pointer
from limbeck.contracts.registry import TABLES
from limbeck.packs import describe_packs

PACKS = "packs"


def list_names(what: str) -> dict[str, dict[str, str]]:
    """Names of one table, or of all, each with the first line of its documentation.

    Raises:
        UnknownNameError: there is no such table.
    """
    known = (*TABLES, PACKS)
    if what and what not in known:
        raise UnknownNameError(what, known=known, what="list")
    return {name: _describe(name) for name in ([what] if what else known)}


def _describe(name: str) -> dict[str, str]:
    if name == PACKS:
        return describe_packs()
    table = TABLES[name]
    return {key: _first_line(resolve(table, key, what=name)) for key in table}


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n", 1)[0]


def draw_names(found: Mapping[str, Mapping[str, str]]) -> Table:
    """The lists as one table."""
    table = Table("list", "name", "what it is", box=None, header_style="bold")
    for what, names in found.items():
        for name, text in names.items():
            table.add_row(what, name, text)
    return table


def describe_artifact(artifact: Artifact, ancestry: Ancestor) -> dict[str, Any]:
    """Manifest, size, and lineage as data."""
    return {
        **artifact.manifest.model_dump(mode="json"),
        "path": str(artifact.path),
        "size_bytes": size_bytes(artifact.path),
        "lineage": [
            {
                "depth": depth,
                "field": item.field,
                "name": item.name,
                "content_hash": item.content_hash,
                "present": item.artifact is not None,
                "sources": dict(item.artifact.manifest.sources) if item.artifact else {},
            }
            for depth, item in ancestry.walk()
        ],
    }


def draw_artifact(artifact: Artifact, ancestry: Ancestor) -> Group:
    """Manifest, metrics and lineage, as text to read."""
    manifest = artifact.manifest
    head = Table(box=None, show_header=False)
    head.add_row("artifact", f"{manifest.name} ({manifest.kind}, made by {manifest.stage or '-'})")
    head.add_row("folder", f"{artifact.path}, {size_bytes(artifact.path):,} bytes")
    if is_pointer(artifact.path):
        head.add_row("stored in", str(follow(artifact.path)))
    head.add_row("content", manifest.content_hash)
    head.add_row("made in", f"{manifest.seconds:,.1f} s")
    head.add_row("versions", ", ".join(f"{k} {v}" for k, v in manifest.versions.items()))
    for name, value in manifest.metrics.items():
        head.add_row(name, f"{value:,.6g}" if isinstance(value, float) else str(value))
    tree = Tree("lineage")
    branches = {-1: tree}
    for depth, item in ancestry.walk():
        gone = "" if item.artifact else " [red](folder is gone)[/]"
        again = " (as above)" if item.is_repeated else ""
        field = f"{item.field}: " if item.field else ""
        label = f"{field}[bold]{item.name}[/] {item.content_hash[:12]}{gone}{again}"
        branches[depth] = branches[depth - 1].add(label)
        if item.artifact and not item.is_repeated:
            for path, digest in item.artifact.manifest.sources.items():
                branches[depth].add(f"source {path} {digest[:12]}")
    return Group(head, tree)
