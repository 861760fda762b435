"""`limbeck show`: an artifact's manifest, metrics and lineage, as data and as text to read."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from limbeck.cli.console import AsJson, print_json, report_user_errors
from limbeck.contracts.artifacts import Artifact, read_artifact, size_bytes
from limbeck.contracts.lineage import Ancestor, trace_lineage
from limbeck.contracts.pointers import follow, is_pointer


def show(
    artifact: Annotated[Path, typer.Argument(help="An artifact's folder, as runs/demo/int8.")],
    as_json: AsJson = False,
) -> None:
    """Print an artifact's settings, its metrics, and its lineage up to the sources.

    ```
    limbeck show runs/demo/int8
    limbeck show runs/demo/student --json
    ```
    """
    with report_user_errors():
        found = read_artifact(artifact)
        (ancestry,) = trace_lineage([found])
        if as_json:
            print_json(describe_artifact(found, ancestry))
        else:
            Console().print(draw_artifact(found, ancestry))


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
    head.add_row("folder", Text(f"{artifact.path}, {size_bytes(artifact.path):,} bytes"))
    if is_pointer(artifact.path):
        head.add_row("stored in", Text(str(follow(artifact.path))))
    head.add_row("content", manifest.content_hash)
    head.add_row("made in", f"{manifest.seconds:,.1f} s")
    head.add_row("versions", ", ".join(f"{k} {v}" for k, v in manifest.versions.items()))
    for name, value in manifest.metrics.items():
        head.add_row(name, Text(f"{value:,.6g}" if isinstance(value, float) else str(value)))
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
                branches[depth].add(Text(f"source {path} {digest[:12]}"))
    return Group(head, tree)
